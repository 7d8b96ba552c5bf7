//! Certificates, right and wrong, as PEM files.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Half a day is added, so that no test depends on the second.
const HALF_A_DAY: Duration = Duration::from_secs(43_200);
const DAY: Duration = Duration::from_secs(86_400);

/// Days for which a certificate has been valid, when it still is.
const VALID_SINCE_DAYS: u32 = 60;

/// A certificate and its key, both PEM.
#[derive(Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Who issues certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub fn new(common_name: &str) -> Result<Self> {
        let mut params = params(common_name, &[], 365)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer })
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a name that expires in so many days and a half, or so many ago less a half.
    pub fn issue(&self, name: &str, days_left: i32) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = params(name, &[name], days_left)?.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn params(common_name: &str, names: &[&str], days_left: i32) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().context("no clock")?;
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_1970 + HALF_A_DAY;
    params.not_before = now - DAY * VALID_SINCE_DAYS;
    params.not_after = match u32::try_from(days_left) {
        Ok(days) => now + DAY * days,
        Err(_) => now - DAY * days_left.unsigned_abs(),
    };
    Ok(params)
}
