//! Who vouches for the broker, and how we prove who we are.

use crate::config::MqttConfig;
use crate::sink::SinkError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// TLS as configured. Reads the files once, at start.
pub(super) fn client_config(config: &MqttConfig) -> Result<Arc<ClientConfig>, SinkError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| SinkError::Open(format!("sink.mqtt.tls: {e}")))?
        .with_root_certificates(authorities(config.ca_file.as_deref())?);
    let (Some(cert), Some(key)) = (&config.client_cert_file, &config.client_key_file) else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let chain = certificates("client_cert_file", cert)?;
    let pem = PrivateKeyDer::from_pem_file(key).map_err(|e| bad("client_key_file", key, &e))?;
    let config = builder.with_client_auth_cert(chain, pem);
    config.map(Arc::new).map_err(|e| bad("client_key_file", key, &e))
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore, SinkError> {
    let mut store = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in certificates("ca_file", file)? {
                store.add(certificate).map_err(|e| bad("ca_file", file, &e))?;
            }
        }
        // One that cannot be read is no reason to do without the others.
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        let text = "sink.mqtt.tls: this system knows no certificate authority; install \
                    ca-certificates or set sink.mqtt.ca_file";
        return Err(SinkError::Open(text.into()));
    }
    Ok(store)
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, SinkError> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).map_err(|e| bad(key, file, &e))?.collect();
    let all = all.map_err(|e| bad(key, file, &e))?;
    if all.is_empty() {
        return Err(bad(key, file, &"holds no certificate in PEM"));
    }
    Ok(all)
}

fn bad(key: &str, file: &Path, why: &dyn std::fmt::Display) -> SinkError {
    SinkError::Open(format!("sink.mqtt.{key}: {}: {why}", file.display()))
}
