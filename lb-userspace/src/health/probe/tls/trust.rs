//! Whom a certificate may come from.

use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{Error, RootCertStore};

use super::certificate;
use crate::health::outcome::{Failure, FailureKind};

/// Files whose certificates are kept parsed: a system's bundle takes a millisecond to parse, and one
/// configuration has few of them. With more, the oldest makes room. Unit: files.
const KEPT_COUNT_MAX: usize = 64;

/// The certificates of one PEM file.
pub(super) struct Authorities {
    roots: RootCertStore,
    /// A server's own certificate among them is trusted as it is: self-signed ones mostly say that they
    /// are an authority's, and no server may have such a certificate else.
    all: Vec<CertificateDer<'static>>,
}

/// A file's content, and what it says.
type Kept = (Arc<[u8]>, Arc<Authorities>);

static KEPT: LazyLock<Mutex<Vec<Kept>>> = LazyLock::new(Mutex::default);

/// The authorities in a PEM file, parsed once.
///
/// # Errors
/// [`FailureKind::Local`]: there are none in it.
pub(super) fn authorities(file: &Path, pem: &Arc<[u8]>) -> Result<Arc<Authorities>, Failure> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let same = kept.iter().find(|(one, _)| Arc::ptr_eq(one, pem));
    let same = same.or_else(|| kept.iter().find(|(one, _)| one == pem));
    if let Some((_, authorities)) = same {
        return Ok(Arc::clone(authorities));
    }
    let authorities = Authorities::parse(pem).map_err(|reason| {
        Failure::new(
            FailureKind::Local,
            format_args!("{}: {reason}", file.display()),
        )
    })?;
    let authorities = Arc::new(authorities);
    if kept.len() == KEPT_COUNT_MAX {
        kept.remove(0);
    }
    kept.push((Arc::clone(pem), Arc::clone(&authorities)));
    Ok(authorities)
}

impl Authorities {
    /// What cannot be read is left out, as a system's bundle may hold what this library does not know.
    fn parse(pem: &[u8]) -> Result<Self, &'static str> {
        let all: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .filter_map(Result::ok)
            .collect();
        let mut roots = RootCertStore::empty();
        let (count, _) = roots.add_parsable_certificates(all.iter().cloned());
        match count {
            0 => Err("there is no certificate in it (-----BEGIN CERTIFICATE-----)"),
            _ => Ok(Self { roots, all }),
        }
    }

    /// Whether the certificate comes from one of them, now, and is for this name.
    ///
    /// # Errors
    /// rustls' words for why not.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        if self.all.iter().any(|one| one == leaf) {
            certificate::check_dates(leaf, now)?;
        } else {
            let algorithms = super::RING.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        verify_server_name(&parsed, name)
    }
}
