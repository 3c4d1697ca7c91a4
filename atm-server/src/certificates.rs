//! A small private authority: what makes the certificates of the server and of terminals.
//!
//! It is a directory with `ca.pem`, which everybody may have, and `ca.key`, with which anybody could name
//! himself a terminal or the bank. All keys are of ECDSA on P-256. The authority's name is made of its key, so that
//! two authorities have two names, and whoever is shown a certificate of the other says so.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bank_core::certificates::{
    CertificateFileError, UnnamableTerminal, is_for_key, read_certificates, read_key, terminal_name,
};
use bank_core::files::write_beside;
use bank_core::limits::AUTHORITY_DAYS;
use bank_core::{BusinessDate, TerminalId, secret_file};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::ServerName;
use zeroize::Zeroizing;

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The authority's key is not fit for use.
    #[error(transparent)]
    Key(#[from] CertificateFileError),
    /// A file is there already.
    #[error("{} is there already: --replace makes it anew, with another key", .0.display())]
    Exists(PathBuf),
    /// Half of the authority is missing.
    #[error(
        "{} is missing: restore it, or make a new authority in another directory; every certificate of the old one must \
         then be made anew",
        .0.display()
    )]
    Halved(PathBuf),
    /// The authority's certificate is another's.
    #[error(
        "{} is not the certificate of the key beside it: restore the two together, or make a new authority in another directory",
        .0.display()
    )]
    NotEachOthers(PathBuf),
    /// The terminal's id cannot be part of a name.
    #[error(transparent)]
    Terminal(#[from] UnnamableTerminal),
    /// The name is neither a host's nor an address.
    #[error("--server \"{0}\" is neither a host's name such as bank.example.org nor an IP address")]
    ServerName(String),
    /// The certificate could not be made.
    #[error("making a certificate: {0}")]
    Making(#[from] rcgen::Error),
}

/// A certificate and its key, on disk.
#[derive(Debug)]
pub struct CertifiedFiles {
    /// The certificate, which is no secret.
    pub certificate: PathBuf,
    /// The key, for its owner alone.
    pub key: PathBuf,
}

impl CertifiedFiles {
    fn new(directory: &Path, name: &str) -> CertifiedFiles {
        CertifiedFiles {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}.key")),
        }
    }

    fn write(&self, certificate: &rcgen::Certificate, key: &KeyPair) -> Result<(), AuthorityError> {
        // The key first: a certificate without its key would be taken for a whole pair.
        let key_pem = Zeroizing::new(key.serialize_pem());
        let create_key = |path: &Path| secret_file::create(path, key_pem.as_bytes());
        write_beside(&self.key, create_key, |beside| fs::rename(beside, &self.key))
            .map_err(io_error(&self.key))?;
        let path = &self.certificate;
        let create_certificate = |path: &Path| {
            let mut file = File::create_new(path)?;
            file.write_all(certificate.pem().as_bytes())?;
            file.sync_all()
        };
        write_beside(path, create_certificate, |beside| fs::rename(beside, path)).map_err(io_error(path))
    }
}

/// An authority that is ready to make certificates.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    today: BusinessDate,
}

impl Authority {
    /// The authority in a directory; a new one, if there is none. Gives also whether it is new.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn open_or_create(
        directory: &Path,
        today: BusinessDate,
    ) -> Result<(Authority, bool), AuthorityError> {
        let files = CertifiedFiles::new(directory, "ca");
        let (key, is_new) = match (files.key.exists(), files.certificate.exists()) {
            (true, true) => {
                let key = KeyPair::try_from(&read_key(&files.key)?)?;
                let public_key = key.subject_public_key_info();
                let certificates = read_certificates(&files.certificate)?;
                // With another's certificate beside the key, nobody could verify what the key signs.
                if !matches!(&certificates[..], [certificate] if is_for_key(certificate, &public_key)) {
                    return Err(AuthorityError::NotEachOthers(files.certificate));
                }
                (key, false)
            }
            (false, false) => {
                fs::create_dir_all(directory).map_err(io_error(directory))?;
                let key = KeyPair::generate()?;
                let certificate = authority(&key, today).self_signed(&key)?;
                files.write(&certificate, &key)?;
                (key, true)
            }
            (true, false) => return Err(AuthorityError::Halved(files.certificate)),
            (false, true) => return Err(AuthorityError::Halved(files.key)),
        };
        let authority = Authority {
            directory: directory.to_owned(),
            issuer: Issuer::new(authority(&key, today), key),
            today,
        };
        Ok((authority, is_new))
    }

    /// A server's certificate, for the names and addresses by which terminals call it.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn certify_server(
        &self,
        names: &[String],
        days: u16,
        replace: bool,
    ) -> Result<CertifiedFiles, AuthorityError> {
        check_names(names, &[])?;
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        self.certify("server", "ATM bank server", names, usage, days, replace)
    }

    /// A terminal's certificate.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn certify_terminal(
        &self,
        id: TerminalId,
        days: u16,
        replace: bool,
    ) -> Result<CertifiedFiles, AuthorityError> {
        let name = terminal_name(id)?;
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        self.certify(id.as_str(), id.as_str(), &[name], usage, days, replace)
    }

    fn certify(
        &self,
        file: &str,
        common_name: &str,
        names: &[String],
        usage: ExtendedKeyUsagePurpose,
        days: u16,
        replace: bool,
    ) -> Result<CertifiedFiles, AuthorityError> {
        let files = CertifiedFiles::new(&self.directory, file);
        let existing = [&files.certificate, &files.key]
            .into_iter()
            .find(|path| path.exists());
        if let Some(path) = existing
            && !replace
        {
            return Err(AuthorityError::Exists(path.clone()));
        }
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named(common_name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        good_for(&mut params, self.today, days.into());
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        files.write(&certificate, &key)?;
        Ok(files)
    }
}

/// That there can be certificates for these names of a server, and for these terminals.
///
/// # Errors
/// [`AuthorityError::ServerName`] or [`AuthorityError::Terminal`].
pub fn check_names(server: &[String], terminals: &[TerminalId]) -> Result<(), AuthorityError> {
    if let Some(name) = server
        .iter()
        .find(|name| ServerName::try_from(name.as_str()).is_err())
    {
        return Err(AuthorityError::ServerName(name.clone()));
    }
    for &id in terminals {
        terminal_name(id)?;
    }
    Ok(())
}

fn authority(key: &KeyPair, today: BusinessDate) -> CertificateParams {
    let mut params = CertificateParams::default();
    let identifier = params.key_identifier(key);
    let identifier: String = identifier[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = named(&format!("ATM bank authority {identifier}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    good_for(&mut params, today, AUTHORITY_DAYS);
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// From yesterday, since clocks differ, to so many days from today.
fn good_for(params: &mut CertificateParams, today: BusinessDate, days: i32) {
    const DAY_SECONDS: u64 = 24 * 60 * 60;
    let midnight = |days: i32| {
        let seconds = u64::from(days.unsigned_abs()) * DAY_SECONDS;
        rcgen::date_time_ymd(1970, 1, 1) + Duration::new(seconds, 0)
    };
    params.not_before = midnight(today.days() - 1);
    params.not_after = midnight(today.days() + days);
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> AuthorityError {
    move |source| AuthorityError::Io {
        path: path.to_owned(),
        source,
    }
}
