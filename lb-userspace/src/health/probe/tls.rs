//! TLS below a probe: the handshake, and whether the certificate is what the operator asked for.
//!
//! Each check makes a full handshake. A resumed session would cost the server less, but it presents no
//! certificate: an expired one would go unnoticed until the ticket has expired too.
//!
//! The handshake itself takes any certificate whose key signs it; what it says is judged as soon as the
//! handshake is done and before a byte of the request is sent. So the days that are left can be told of a
//! certificate that is refused, too.

mod certificate;
mod trust;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
};

use super::Target;
use super::connect::{self, AnyStream};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::{TlsCheck, Trust};

/// What is spoken over TLS, for ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1; a server without ALPN will do.
    Http1,
    /// HTTP/2, which the server has to choose.
    Http2,
}

impl Protocol {
    const fn id(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

static RING: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
static HTTP1: LazyLock<TlsConnector> = LazyLock::new(|| connector(Protocol::Http1));
static HTTP2: LazyLock<TlsConnector> = LazyLock::new(|| connector(Protocol::Http2));

fn connector(protocol: Protocol) -> TlsConnector {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&RING))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(JudgedLater))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![protocol.id().to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Makes the handshake and judges the certificate. `host` = the check's host, with a port or without.
///
/// # Errors
/// [`Failure`], mostly [`FailureKind::Tls`]. The certificate's days are observed all the same.
pub(super) async fn secure(
    stream: AnyStream,
    check: &TlsCheck,
    host: Option<&str>,
    target: Target,
    protocol: Protocol,
    observed: &mut Observed,
) -> Result<AnyStream, Failure> {
    observed.doing = "TLS handshake".into();
    let name = server_name(check.server_name.as_deref(), host, target.address.ip())?;
    let connector: &TlsConnector = match protocol {
        Protocol::Http1 => &HTTP1,
        Protocol::Http2 => &HTTP2,
    };
    let connected = connector.connect(name.clone(), stream).await;
    let stream = connected.map_err(|error| failed(&error))?;
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().unwrap_or_default();
    judge(check, chain, &name, observed)?;
    if protocol == Protocol::Http2 && session.alpn_protocol() != Some(protocol.id()) {
        return Err(no_such_protocol());
    }
    Ok(Box::new(stream))
}

/// The name that is asked for and that the certificate has to be for.
fn server_name(
    given: Option<&str>,
    host: Option<&str>,
    address: IpAddr,
) -> Result<ServerName<'static>, Failure> {
    let name = match (given, host.map(without_port)) {
        (Some(name), _) => name,
        // An address as the host: the certificate has to be for the one that is asked.
        (None, Some(host)) if host.parse::<IpAddr>().is_err() => host,
        _ => return Ok(ServerName::IpAddress(address.into())),
    };
    ServerName::try_from(name.to_owned()).map_err(|_| {
        let words = format_args!("{name:?} is no server name: set tls_name");
        Failure::new(FailureKind::Local, words)
    })
}

fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.parse::<u16>().is_ok() => name,
        _ => host,
    }
}

/// Observes the certificate's days, and decides whether it is the one that is wanted.
fn judge(
    check: &TlsCheck,
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let now = UnixTime::now();
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(Failure::new(
            FailureKind::Tls,
            "the server has no certificate",
        ));
    };
    let days = certificate::days_left(leaf, now);
    observed.certificate_days = days;
    let min_days = i64::from(check.min_valid_days);
    if let Some(days) = days.filter(|days| *days < min_days) {
        observed.warning = Some(match days {
            0.. => format!("certificate expires in {days} days, fewer than {min_days}"),
            _ => "certificate has expired".to_owned(),
        });
    }
    let Trust::Authorities { file, pem } = &check.trust else {
        return Ok(());
    };
    let authorities = trust::authorities(file, pem)?;
    let verified = authorities.verify(leaf, intermediates, name, now);
    verified.map_err(|error| {
        if certificate::has_expired(&error) {
            // The reason says it all.
            observed.warning = None;
        }
        certificate::refused(&error, leaf, name, file, now)
    })
}

fn no_such_protocol() -> Failure {
    let words = "the server does not choose HTTP/2 (ALPN)";
    Failure::new(FailureKind::Tls, words)
}

fn failed(error: &io::Error) -> Failure {
    let doing = "TLS handshake";
    said_by_rustls(error).unwrap_or_else(|| connect::broken(error, doing))
}

/// The failure, where it is one of TLS and not of the connection below.
pub(super) fn said_by_rustls(error: &io::Error) -> Option<Failure> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    if matches!(
        error,
        Error::AlertReceived(AlertDescription::NoApplicationProtocol)
    ) {
        return Some(no_such_protocol());
    }
    let words = match error {
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            format!("the server does not speak TLS at this port ({error})")
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a client certificate, and this check has none".to_owned()
        }
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the server does not know the name that was asked for (SNI)".to_owned()
        }
        Error::AlertReceived(alert) => format!("the server refused the handshake ({alert:?})"),
        Error::PeerIncompatible(why) => {
            format!("no TLS version or cipher in common with the server ({why:?})")
        }
        other => format!("TLS: {other}"),
    };
    Some(Failure::new(FailureKind::Tls, words))
}

/// Takes any certificate, if the server has its key: [`judge`] decides later.
#[derive(Debug)]
struct JudgedLater;

impl ServerCertVerifier for JudgedLater {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &RING.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &RING.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        RING.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
