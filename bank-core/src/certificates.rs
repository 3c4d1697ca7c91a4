//! Certificates, as far as the bank has an opinion of them: their files, and which terminal one names.
//!
//! A terminal's certificate names it by a DNS name of its own, `atm-1.terminal.internal` for ATM-1, in a domain
//! that ICANN keeps for private use, so that no certificate of a public authority can name one. Whether a certificate is
//! to be believed is decided by TLS, not here.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use webpki::EndEntityCert;
use zeroize::Zeroizing;

use crate::ids::TerminalId;
use crate::limits::MAX_PEM_BYTES;
use crate::secret_file;

/// What can be wrong with a file of certificates or with a key's.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFileError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others may read the key.
    #[error("the key file {} may be read or written by others: run \"chmod 600\" on it", .0.display())]
    Exposed(PathBuf),
    /// The file holds something else.
    #[error("{} holds no {what} in PEM: \"atm-server certificate\" makes such files", path.display())]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
}

/// A terminal's id cannot be part of a DNS name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no certificate can name terminal {0}: a name in a certificate neither begins nor ends with a hyphen"
)]
pub struct UnnamableTerminal(pub TerminalId);

/// Reads one or more certificates in PEM, such as a chain with the server's own first.
///
/// # Errors
/// [`CertificateFileError`], also if there is none in it.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateFileError> {
    let pem = read_pem(path, File::open(path))?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| CertificateFileError::NotPem {
            path: path.to_owned(),
            what: "certificate",
        })
}

/// Reads a private key in PEM (PKCS #8, SEC 1 or PKCS #1), of a file that is readable by its owner alone.
///
/// # Errors
/// [`CertificateFileError`].
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateFileError> {
    let file = File::open(path);
    if let Ok(file) = &file
        && secret_file::is_exposed(file).map_err(io_error(path))?
    {
        return Err(CertificateFileError::Exposed(path.to_owned()));
    }
    let pem = read_pem(path, file)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| CertificateFileError::NotPem {
        path: path.to_owned(),
        what: "private key",
    })
}

fn read_pem(path: &Path, file: io::Result<File>) -> Result<Zeroizing<Vec<u8>>, CertificateFileError> {
    let file = file.map_err(io_error(path))?;
    // With its final size from the start, so that no copy of a key is left behind by growing.
    let mut pem = Zeroizing::new(Vec::with_capacity(MAX_PEM_BYTES as usize + 1));
    file.take(MAX_PEM_BYTES + 1)
        .read_to_end(&mut pem)
        .map_err(io_error(path))?;
    if pem.len() as u64 > MAX_PEM_BYTES {
        return Err(io_error(path)(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(pem)
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> CertificateFileError {
    move |source| CertificateFileError::Io {
        path: path.to_owned(),
        source,
    }
}

/// The DNS name by which a certificate names a terminal.
///
/// # Errors
/// [`UnnamableTerminal`] if the id begins or ends with a hyphen.
pub fn terminal_name(id: TerminalId) -> Result<String, UnnamableTerminal> {
    let name = format!("{}.terminal.internal", id.as_str().to_ascii_lowercase());
    match ServerName::try_from(name.as_str()) {
        Ok(ServerName::DnsName(_)) if !id.as_str().ends_with('-') => Ok(name),
        _ => Err(UnnamableTerminal(id)),
    }
}

/// Whether a certificate names that terminal.
pub fn names_terminal(certificate: &CertificateDer<'_>, id: TerminalId) -> bool {
    let Ok(name) = terminal_name(id) else {
        return false;
    };
    let Ok(name) = ServerName::try_from(name) else {
        return false;
    };
    EndEntityCert::try_from(certificate)
        .is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

/// Whether a certificate is for the key whose public half is `public_key`, a SubjectPublicKeyInfo of RFC 5280 in DER.
pub fn is_for_key(certificate: &CertificateDer<'_>, public_key: &[u8]) -> bool {
    EndEntityCert::try_from(certificate)
        .is_ok_and(|certificate| *certificate.subject_public_key_info() == *public_key)
}

/// Whether a certificate names itself as its issuer, so that nobody vouches for it.
pub fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    EndEntityCert::try_from(certificate)
        .is_ok_and(|certificate| certificate.issuer() == certificate.subject())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminals_name_is_its_id_in_small_letters_in_a_private_domain() {
        let name = |id| terminal_name(TerminalId::new(id).unwrap());
        for (id, expected) in [
            ("ATM-1", "atm-1.terminal.internal"),
            ("7", "7.terminal.internal"),
            ("A--B", "a--b.terminal.internal"),
        ] {
            assert_eq!(name(id).as_deref(), Ok(expected));
        }
        for id in ["-", "-A", "A-"] {
            assert_eq!(name(id), Err(UnnamableTerminal(TerminalId::new(id).unwrap())));
        }
    }
}
