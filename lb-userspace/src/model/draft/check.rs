//! A health check as written, whatever its type: which keys go with which type is for the rules to say.

use std::net::IpAddr;

use super::Field;
use crate::model::check::{
    Check, CheckType, DnsType, HttpVersion, ReplicationState, StatusRange, Trust, Via,
};
use crate::model::files;
use crate::model::text::TextError;

/// A check of a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckDraft {
    /// As somebody has written it.
    Written(Box<WrittenCheck>),
    /// Of a model: it was found good when it was written. What it needs of the file system is not looked
    /// at again, so that a change of something else does not depend on it.
    Known(Box<Check>),
}

impl CheckDraft {
    /// Its type; `None` = missing or unreadable.
    pub fn check_type(&self) -> Option<CheckType> {
        match self {
            Self::Written(written) => written.check_type.given().copied(),
            Self::Known(check) => Some(check.kind.check_type()),
        }
    }
}

impl From<&Check> for CheckDraft {
    fn from(check: &Check) -> Self {
        Self::Known(Box::new(check.clone()))
    }
}

/// A check as written. The doc comments name the key where it is another word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenCheck {
    /// `type`, required.
    pub check_type: Field<CheckType>,
    /// `interval`. Unit: milliseconds.
    pub interval_ms: Field<i64>,
    /// `fast_interval`. Unit: milliseconds.
    pub fast_interval_ms: Field<i64>,
    /// `timeout`. Unit: milliseconds.
    pub timeout_ms: Field<i64>,
    /// Successes until it is up.
    pub rise: Field<i64>,
    /// Failures until it is down.
    pub fall: Field<i64>,
    /// In place of the backend's.
    pub port: Field<i64>,
    /// In place of the one that routing chooses.
    pub source: Field<IpAddr>,
    /// Default `direct`.
    pub via: Field<Via>,
    /// HTTP: default `GET`.
    pub method: Field<String>,
    /// HTTP: default `/`. FastCGI: default `/ping`.
    pub path: Field<String>,
    /// HTTP: default the backend's address and port.
    pub host: Field<String>,
    /// HTTP: names as they were written.
    pub headers: Field<Vec<(String, String)>>,
    /// HTTP and FastCGI: default 200-399.
    pub status: Field<Vec<StatusRange>>,
    /// HTTP and FastCGI.
    pub body: Field<String>,
    /// HTTP: default `1.1`.
    pub version: Field<HttpVersion>,
    /// gRPC: default `false`.
    pub tls: Field<bool>,
    /// TLS.
    pub tls_name: Field<String>,
    /// TLS: default `true` with a `ca_file`, else `false`.
    pub verify: Field<bool>,
    /// `ca_file`, read; see [`Self::complete_authorities`] too.
    pub ca: Field<Trust>,
    /// TLS: default [`super::check_build::MIN_VALID_DAYS_DEFAULT`]. Unit: days.
    pub min_valid_days: Field<i64>,
    /// Databases.
    pub user: Field<String>,
    /// Databases: the path, found readable.
    pub password_file: Field<String>,
    /// Databases: the variable's name.
    pub password_env: Field<String>,
    /// PostgreSQL: default `postgres`.
    pub database: Field<String>,
    /// MySQL and PostgreSQL.
    pub query: Field<String>,
    /// Databases.
    pub writable: Field<bool>,
    /// Databases: default `any`.
    pub replication: Field<ReplicationState>,
    /// `max_lag`. Unit: seconds.
    pub max_lag_s: Field<i64>,
    /// MySQL.
    pub gtid: Field<String>,
    /// gRPC.
    pub grpc_service: Field<String>,
    /// TCP, UDP and agents.
    pub send: Field<String>,
    /// TCP and UDP: a text. DNS: an address.
    pub expect: Field<String>,
    /// DNS.
    pub name: Field<String>,
    /// DNS: default `A`.
    pub query_type: Field<DnsType>,
    /// Programs: the path, found executable, and the arguments.
    pub command: Field<Vec<String>>,
}

impl WrittenCheck {
    /// Takes the authorities of the system where the answerer's certificate is to be verified and no
    /// `ca_file` says by whom.
    ///
    /// # Errors
    /// Why the system has none.
    pub fn complete_authorities(&mut self) -> Result<(), TextError> {
        if self.verify == Field::Given(true) && self.ca == Field::Absent {
            self.ca = Field::Unreadable;
            self.ca = Field::Given(files::system_authorities()?);
        }
        Ok(())
    }

    /// The keys that were written, readable or not.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("interval", self.interval_ms.is_written()),
            ("fast_interval", self.fast_interval_ms.is_written()),
            ("timeout", self.timeout_ms.is_written()),
            ("rise", self.rise.is_written()),
            ("fall", self.fall.is_written()),
            ("port", self.port.is_written()),
            ("source", self.source.is_written()),
            ("via", self.via.is_written()),
            ("method", self.method.is_written()),
            ("path", self.path.is_written()),
            ("host", self.host.is_written()),
            ("headers", self.headers.is_written()),
            ("status", self.status.is_written()),
            ("body", self.body.is_written()),
            ("version", self.version.is_written()),
            ("tls", self.tls.is_written()),
            ("tls_name", self.tls_name.is_written()),
            ("verify", self.verify.is_written()),
            ("ca_file", self.ca.is_written()),
            ("min_valid_days", self.min_valid_days.is_written()),
            ("user", self.user.is_written()),
            ("password_file", self.password_file.is_written()),
            ("password_env", self.password_env.is_written()),
            ("database", self.database.is_written()),
            ("query", self.query.is_written()),
            ("writable", self.writable.is_written()),
            ("replication", self.replication.is_written()),
            ("max_lag", self.max_lag_s.is_written()),
            ("gtid", self.gtid.is_written()),
            ("grpc_service", self.grpc_service.is_written()),
            ("send", self.send.is_written()),
            ("expect", self.expect.is_written()),
            ("name", self.name.is_written()),
            ("query_type", self.query_type.is_written()),
            ("command", self.command.is_written()),
        ];
        let written = all.into_iter().filter(|(_, is_written)| *is_written);
        written.map(|(key, _)| key)
    }
}
