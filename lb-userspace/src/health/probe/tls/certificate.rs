//! What a certificate says, and why it is refused, in words.

use std::net::IpAddr;
use std::path::Path;

use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::health::outcome::{Failure, FailureKind};

const DAY_S: i64 = 86_400;

/// A reason tells this many of a certificate's names. Unit: names.
const NAMES_TOLD_MAX: usize = 3;

/// Whole days until the certificate expires, negative since it has; `None` = it cannot be read.
pub(super) fn days_left(leaf: &CertificateDer<'_>, now: UnixTime) -> Option<i64> {
    let certificate = parse(leaf)?;
    let left_s = certificate.validity().not_after.timestamp() - as_s(now);
    Some(left_s.div_euclid(DAY_S))
}

fn parse<'a>(leaf: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    Some(certificate)
}

fn as_s(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Whether a certificate that nobody vouches for is valid now.
///
/// # Errors
/// It has expired, is not valid yet, or cannot be read.
pub(super) fn check_dates(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let certificate = parse(leaf).ok_or(CertificateError::BadEncoding)?;
    let (not_before, not_after) = {
        let validity = certificate.validity();
        (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        )
    };
    if as_s(now) > not_after {
        return Err(CertificateError::Expired.into());
    }
    if as_s(now) < not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    Ok(())
}

/// Whether a certificate is refused for its age.
pub(super) fn has_expired(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext};
    matches!(
        error,
        Error::InvalidCertificate(Expired | ExpiredContext { .. })
    )
}

/// Why a certificate is refused.
pub(super) fn refused(
    error: &Error,
    leaf: &CertificateDer<'_>,
    name: &ServerName<'_>,
    file: &Path,
    now: UnixTime,
) -> Failure {
    use CertificateError as Why;
    let (Error::InvalidCertificate(why), Some(certificate)) = (error, parse(leaf)) else {
        return Failure::new(FailureKind::Tls, format_args!("certificate: {error}"));
    };
    let words = match why {
        Why::Expired | Why::ExpiredContext { .. } => expired(&certificate, now),
        Why::NotValidYet | Why::NotValidYetContext { .. } => not_yet(&certificate, now),
        Why::NotValidForName | Why::NotValidForNameContext { .. } => {
            format!(
                "certificate is for {}, not for {}",
                names(&certificate),
                name.to_str()
            )
        }
        // A self-signed one is often refused for being an authority's, too.
        Why::UnknownIssuer | Why::Other(_) if is_self_signed(&certificate) => {
            format!(
                "self-signed certificate, which is not in {}",
                file.display()
            )
        }
        Why::UnknownIssuer => format!(
            "untrusted certificate: its issuer {} is not in {}",
            certificate.issuer(),
            file.display(),
        ),
        Why::BadSignature => format!(
            "certificate whose signature is not that of the authority in {}",
            file.display()
        ),
        Why::InvalidPurpose | Why::InvalidPurposeContext { .. } => {
            "certificate that is not for servers (extended key usage)".to_owned()
        }
        _ => format!("certificate: {error}"),
    };
    Failure::new(FailureKind::Tls, words)
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

fn expired(certificate: &X509Certificate<'_>, now: UnixTime) -> String {
    match as_s(now) - certificate.validity().not_after.timestamp() {
        since_s @ 0.. => format!("certificate expired {} ago", span(since_s)),
        _ => "the certificate of an intermediate authority has expired".to_owned(),
    }
}

fn not_yet(certificate: &X509Certificate<'_>, now: UnixTime) -> String {
    match certificate.validity().not_before.timestamp() - as_s(now) {
        until_s @ 1.. => format!(
            "certificate is not valid before {} from now: are both clocks right?",
            span(until_s)
        ),
        _ => "the certificate of an intermediate authority is not valid yet".to_owned(),
    }
}

fn span(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..DAY_S => format!("{} h", seconds / 3_600),
        _ if seconds / DAY_S == 1 => "1 day".to_owned(),
        _ => format!("{} days", seconds / DAY_S),
    }
}

/// The names that a certificate is for (subjectAltName; the common name has not counted since RFC 9525).
fn names(certificate: &X509Certificate<'_>) -> String {
    let extension = certificate.subject_alternative_name();
    let all = match &extension {
        Ok(Some(extension)) => extension.value.general_names.as_slice(),
        _ => &[],
    };
    let mut told: Vec<String> = all
        .iter()
        .filter_map(told_name)
        .take(NAMES_TOLD_MAX)
        .collect();
    if told.is_empty() {
        return "no name (it has no subjectAltName)".to_owned();
    }
    if all.len() > told.len() {
        told.push("…".to_owned());
    }
    told.join(", ")
}

fn told_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let address = match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
            };
            address.map(|address| address.to_string())
        }
        _ => None,
    }
}
