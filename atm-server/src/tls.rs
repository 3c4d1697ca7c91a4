//! TLS for terminals: what the server shows them, and whose certificates it takes for theirs.
//!
//! TLS 1.3 and nothing else; no resumption and no early data, so that nothing that was recorded can be said again.

use std::path::Path;
use std::sync::Arc;

use bank_core::certificates::{CertificateFileError, read_certificates, read_key};
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What it takes to speak TLS with terminals.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not fit for use.
    #[error(transparent)]
    File(#[from] CertificateFileError),
    /// The certificate and the key are not each other's, or not of a kind that is known.
    #[error("--tls-cert {cert} with --tls-key {key}: {source}")]
    Certificate {
        /// The certificate's file.
        cert: String,
        /// The key's.
        key: String,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The authority for terminals is none.
    #[error("--tls-client-ca {ca}: {source}")]
    Authority {
        /// The file.
        ca: String,
        /// What rustls said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Files in PEM.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// The server's certificate, and after it whatever leads to its authority.
    pub cert: &'a Path,
    /// Its private key, for its owner alone.
    pub key: &'a Path,
    /// The authority that names terminals, if any does.
    pub client_ca: Option<&'a Path>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] says which of them is of no use, and why.
    pub fn new(files: TlsFiles<'_>) -> Result<Tls, TlsError> {
        let TlsFiles { cert, key, client_ca } = files;
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider speaks TLS 1.3");
        let config = match client_ca {
            None => config.with_no_client_auth(),
            Some(ca) => {
                let authority = |source| TlsError::Authority {
                    ca: ca.display().to_string(),
                    source,
                };
                let mut roots = RootCertStore::empty();
                for certificate in read_certificates(ca)? {
                    roots.add(certificate).map_err(|error| authority(error.into()))?;
                }
                // A terminal without a certificate has to have a secret: that is seen when it says hello.
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error: VerifierBuilderError| authority(error.into()))?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let mut config = config
            .with_single_cert(read_certificates(cert)?, read_key(key)?)
            .map_err(|source| TlsError::Certificate {
                cert: cert.display().to_string(),
                key: key.display().to_string(),
                source,
            })?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands with a client. Gives the stream and the certificate that the client has shown, if it has: one that
    /// the authority for terminals vouches for.
    ///
    /// # Errors
    /// If the client does not speak TLS, shows a certificate that is not good, or does not like the server's.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> std::io::Result<(TlsStream<TcpStream>, Option<CertificateDer<'static>>)> {
        let stream = self.0.accept(stream).await?;
        let (_, session) = stream.get_ref();
        let certificate = session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|certificate| certificate.clone().into_owned());
        Ok((stream, certificate))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}
