//! TLS, as a terminal speaks it: whom it takes for the bank, what it shows the bank, and in which words it is told that
//! one of the two was not accepted.
//!
//! TLS 1.3 and nothing else; no resumption and no early data, so that nothing that was recorded can be said again.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bank_core::certificates::{CertificateFileError, is_self_signed, read_certificates, read_key};
use bank_core::{Moment, Timestamp};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// How what a terminal says is kept from others.
#[derive(Clone, Debug, Default)]
pub enum Privacy {
    /// It does not leave this machine: another one is not connected to.
    #[default]
    Loopback,
    /// By TLS.
    Tls(Tls),
    /// Not at all: everybody on the way can read PINs and change amounts.
    Nothing,
}

/// What it takes to speak TLS with the bank.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    /// The name that the bank's certificate must have, if it is not the one by which the bank is called.
    name: Option<ServerName<'static>>,
    /// Whether this terminal's own certificate is its own authority.
    own_is_self_signed: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not fit for use.
    #[error(transparent)]
    File(#[from] CertificateFileError),
    /// The authority is none.
    #[error("--tls-ca {ca}: {source}")]
    Authority {
        /// The file.
        ca: String,
        /// What rustls said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This terminal's certificate and key are not each other's, or not of a kind that is known.
    #[error("--tls-cert {cert} with --tls-key {key}: {source}")]
    Certificate {
        /// The certificate's file.
        cert: String,
        /// The key's.
        key: String,
        /// What rustls said.
        source: Error,
    },
    /// TLS cannot be begun.
    #[error("TLS: {0}")]
    Handshake(#[source] Error),
    /// A server cannot be called that.
    #[error("\"{0}\" is no host's name and no IP address")]
    Name(String),
}

/// Files in PEM.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// The authority that vouches for the bank.
    pub ca: &'a Path,
    /// This terminal's certificate and its private key, if it has them.
    pub own: Option<(&'a Path, &'a Path)>,
}

impl Tls {
    /// Reads the files. The bank's certificate must be for `name`, or else for the name by which it is called.
    ///
    /// # Errors
    /// [`TlsError`] says which of them is of no use, and why.
    pub fn new(files: TlsFiles<'_>, name: Option<&str>) -> Result<Tls, TlsError> {
        let TlsFiles { ca, own } = files;
        let authority = |source| TlsError::Authority {
            ca: ca.display().to_string(),
            source,
        };
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(ca)? {
            roots.add(certificate).map_err(|error| authority(error.into()))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
            .build()
            .map_err(|error| authority(error.into()))?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("the provider speaks TLS 1.3")
            // What rustls calls dangerous is to decide oneself, which `Verifier` does not.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier(verifier)));
        let (mut config, own_is_self_signed) = match own {
            None => (config.with_no_client_auth(), false),
            Some((cert, key)) => {
                let chain = read_certificates(cert)?;
                let self_signed = chain.first().is_some_and(is_self_signed);
                let config = config.with_client_auth_cert(chain, read_key(key)?);
                let config = config.map_err(|source| TlsError::Certificate {
                    cert: cert.display().to_string(),
                    key: key.display().to_string(),
                    source,
                })?;
                (config, self_signed)
            }
        };
        config.resumption = Resumption::disabled();
        Ok(Tls {
            config: Arc::new(config),
            name: name.map(server_name).transpose()?,
            own_is_self_signed,
        })
    }

    /// Begins to speak TLS with a server that is called `address`, a host and a port.
    ///
    /// # Errors
    /// If no certificate can be for a host of that name.
    pub(crate) fn connection(&self, address: &str) -> Result<ClientConnection, TlsError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                server_name(host.trim_start_matches('[').trim_end_matches(']'))?
            }
        };
        ClientConnection::new(Arc::clone(&self.config), name).map_err(TlsError::Handshake)
    }

    /// Why the bank, or this terminal in its eyes, is not who it says; `None` if the error is something else, and may pass.
    pub(crate) fn explain(&self, error: &io::Error) -> Option<String> {
        match error.get_ref()?.downcast_ref::<Error>()? {
            Error::InvalidCertificate(error) => Some(format!("the bank's certificate {}", bank_fault(error))),
            Error::AlertReceived(alert) => self.own_fault(*alert),
            Error::InvalidMessage(_) => {
                Some("the server does not speak TLS: for a server on this machine leave --tls-ca out".into())
            }
            _ => None,
        }
    }

    fn own_fault(&self, alert: AlertDescription) -> Option<String> {
        use AlertDescription::*;
        let fault = match alert {
            CertificateExpired => {
                "has expired, or is not good yet: it has to be made anew by \"atm-server certificate\""
            }
            UnknownCA | DecryptError | CertificateUnknown if self.own_is_self_signed => {
                "is self-signed: the bank takes only those of its own authority (--tls-client-ca)"
            }
            UnknownCA | DecryptError => {
                "is not of the bank's authority: the bank takes only those of its --tls-client-ca"
            }
            UnsupportedCertificate => "is not a terminal's: it was made for another use",
            BadCertificate | CertificateRevoked | CertificateUnknown | AccessDenied => {
                "was refused: the bank's log tells why"
            }
            _ => return None,
        };
        Some(format!("the bank says that this terminal's certificate {fault}"))
    }
}

fn bank_fault(error: &CertificateError) -> String {
    use CertificateError::*;
    let date = |time: &UnixTime| {
        let millis = i64::try_from(time.as_secs().saturating_mul(1000)).unwrap_or(i64::MAX);
        Moment::at(Timestamp::from_millis(millis)).date
    };
    match error {
        Expired => "has expired: the bank has to make it anew".into(),
        ExpiredContext { not_after, .. } => {
            format!("expired on {}: the bank has to make it anew", date(not_after))
        }
        NotValidYet => "is not good yet: compare this machine's clock".into(),
        NotValidYetContext { not_before, .. } => {
            format!(
                "is good from {} on: compare this machine's clock",
                date(not_before)
            )
        }
        UnknownIssuer | BadSignature => {
            "is not of the authority in --tls-ca, so this may be somebody else".into()
        }
        NotValidForName => "is for another name, so this may be somebody else".into(),
        NotValidForNameContext { expected, .. } => format!(
            "is not for {}: call the bank by its name, or say it with --tls-server-name",
            expected.to_str()
        ),
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "is not a server's, so this may be somebody else".into()
        }
        Other(why) if why.0.is::<SelfSigned>() => format!("is {}", why.0),
        Other(_) => "is not a server's, but an authority's or of an unknown kind".into(),
        other => format!("is not good: {other}"),
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))
}

/// The usual rules for a server's certificate; of one that they refuse, it says whether anybody vouches for it at all.
#[derive(Debug)]
struct Verifier(Arc<WebPkiServerVerifier>);

/// The issuer of a certificate is nobody else than who shows it.
#[derive(Debug, thiserror::Error)]
#[error("self-signed, so nobody vouches that this is the bank")]
struct SelfSigned;

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .0
            .verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
                if is_self_signed(certificate) =>
            {
                Err(CertificateError::Other(OtherError(Arc::new(SelfSigned))).into())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
