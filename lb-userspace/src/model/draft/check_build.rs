//! Written checks → checks. `None` = something is missing, unreadable or does not fit its type, which is
//! reported elsewhere. Whether it makes sense is for [`crate::model::rules`] to say.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{CheckDraft, Field, WrittenCheck};
use crate::model::check::{
    AgentCheck, Check, CheckKind, CheckType, DnsCheck, DnsType, ExchangeCheck, ExecCheck,
    FastcgiCheck, GrpcCheck, HttpCheck, HttpVersion, MysqlCheck, PostgresCheck, RedisCheck,
    Replication, ReplicationState, Role, Secret, StatusRange, Timing, TlsCheck, Trust, Via,
};
use crate::model::{Protocol, text};

/// The life that a certificate should still have, if nothing is said. Unit: days.
pub const MIN_VALID_DAYS_DEFAULT: u16 = 14;

/// What counts as an answer, if nothing is said: success and redirection.
const STATUS_DEFAULT: StatusRange = StatusRange {
    first: 200,
    last: 399,
};

/// What a check depends on of its service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    pub(super) protocol: Protocol,
    pub(super) role: Role,
}

impl CheckDraft {
    pub(super) fn build(&self, service: Surroundings) -> Option<Check> {
        let mut check = match self {
            Self::Known(check) => Check::clone(check),
            Self::Written(written) => written.build(service.protocol)?,
        };
        if let Some(replication) = check.kind.replication_mut() {
            replication.observe = service.role != Role::None;
        }
        Some(check)
    }
}

impl CheckKind {
    fn replication_mut(&mut self) -> Option<&mut Replication> {
        match self {
            Self::Mysql(mysql) => Some(&mut mysql.replication),
            Self::Postgres(postgres) => Some(&mut postgres.replication),
            Self::Redis(redis) => Some(&mut redis.replication),
            _ => None,
        }
    }
}

/// Values with their defaults.
impl WrittenCheck {
    /// The interval. Unit: milliseconds.
    pub fn interval_ms(&self) -> Option<i64> {
        self.interval_ms.or(i64::from(Timing::DEFAULT.interval_ms))
    }

    /// The interval while in doubt: at most the other one. Unit: milliseconds.
    pub fn fast_interval_ms(&self) -> Option<i64> {
        self.up_to_interval(self.fast_interval_ms, Timing::DEFAULT.fast_interval_ms)
    }

    /// The time-out: at most the interval. Unit: milliseconds.
    pub fn timeout_ms(&self) -> Option<i64> {
        self.up_to_interval(self.timeout_ms, Timing::DEFAULT.timeout_ms)
    }

    fn up_to_interval(&self, field: Field<i64>, default: u32) -> Option<i64> {
        field.or_else(|| Some(self.interval_ms()?.min(i64::from(default))))
    }

    /// Successes until it is up.
    pub fn rise(&self) -> Option<i64> {
        self.rise.or(i64::from(Timing::DEFAULT.rise))
    }

    /// Failures until it is down.
    pub fn fall(&self) -> Option<i64> {
        self.fall.or(i64::from(Timing::DEFAULT.fall))
    }

    /// What a DNS answer must hold, if it is an address.
    fn expected_address(&self) -> Option<Option<IpAddr>> {
        match &self.expect {
            Field::Given(expect) => text::address(expect).ok().map(Some),
            Field::Absent => Some(None),
            Field::Unreadable => None,
        }
    }
}

impl WrittenCheck {
    fn build(&self, protocol: Protocol) -> Option<Check> {
        Some(Check {
            kind: self.kind(protocol)?,
            timing: self.timing()?,
            port: optional(&self.port, |port| u16::try_from(*port).ok())?,
            source: optional(&self.source, |source| Some(*source))?,
            via: self.via.or(Via::default())?,
        })
    }

    fn timing(&self) -> Option<Timing> {
        Some(Timing {
            interval_ms: u32::try_from(self.interval_ms()?).ok()?,
            fast_interval_ms: u32::try_from(self.fast_interval_ms()?).ok()?,
            timeout_ms: u32::try_from(self.timeout_ms()?).ok()?,
            rise: u8::try_from(self.rise()?).ok()?,
            fall: u8::try_from(self.fall()?).ok()?,
        })
    }

    fn kind(&self, protocol: Protocol) -> Option<CheckKind> {
        Some(match *self.check_type.given()? {
            CheckType::Tcp => CheckKind::Tcp(self.exchange()?),
            CheckType::Http => CheckKind::Http(self.http(None)?),
            CheckType::Https => CheckKind::Http(self.http(Some(self.tls()?))?),
            CheckType::Mysql => CheckKind::Mysql(self.mysql()?),
            CheckType::Postgres => CheckKind::Postgres(self.postgres()?),
            CheckType::Redis => CheckKind::Redis(self.redis()?),
            CheckType::Fastcgi => CheckKind::Fastcgi(self.fastcgi()?),
            CheckType::Grpc => CheckKind::Grpc(self.grpc()?),
            CheckType::Udp => CheckKind::Udp(self.exchange()?),
            CheckType::Dns => CheckKind::Dns(self.dns(protocol)?),
            CheckType::Icmp => CheckKind::Icmp,
            CheckType::Exec => CheckKind::Exec(self.exec()?),
            CheckType::Agent => CheckKind::Agent(AgentCheck {
                send: text_or(&self.send, "")?,
            }),
        })
    }

    fn exchange(&self) -> Option<ExchangeCheck> {
        Some(ExchangeCheck {
            send: text_or(&self.send, "")?,
            expect: text_or(&self.expect, "")?,
        })
    }

    fn http(&self, tls: Option<TlsCheck>) -> Option<HttpCheck> {
        let headers = optional(&self.headers, |headers| Some(headers.clone()))?;
        let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
        Some(HttpCheck {
            tls,
            version: self.version.or(HttpVersion::default())?,
            method: text_or(&self.method, "GET")?,
            path: text_or(&self.path, "/")?,
            host: optional(&self.host, |host| Some(host.clone()))?,
            headers: headers.unwrap_or_default().into_iter().map(lower).collect(),
            status: self.status()?,
            body: text_or(&self.body, "")?,
        })
    }

    fn status(&self) -> Option<Vec<StatusRange>> {
        let status = optional(&self.status, |status| Some(status.clone()))?;
        Some(status.unwrap_or_else(|| vec![STATUS_DEFAULT]))
    }

    fn tls(&self) -> Option<TlsCheck> {
        let days = self.min_valid_days.or(i64::from(MIN_VALID_DAYS_DEFAULT))?;
        Some(TlsCheck {
            server_name: optional(&self.tls_name, |name| Some(name.clone()))?,
            trust: optional(&self.ca, |ca| Some(ca.clone()))?.unwrap_or(Trust::Anybody),
            min_valid_days: u16::try_from(days).ok()?,
        })
    }

    fn mysql(&self) -> Option<MysqlCheck> {
        Some(MysqlCheck {
            user: self.user.given()?.clone(),
            password: self.password()?,
            query: text_or(&self.query, "")?,
            replication: self.replication()?,
        })
    }

    fn postgres(&self) -> Option<PostgresCheck> {
        Some(PostgresCheck {
            user: self.user.given()?.clone(),
            password: self.password()?,
            database: text_or(&self.database, "postgres")?,
            query: text_or(&self.query, "")?,
            replication: self.replication()?,
        })
    }

    fn redis(&self) -> Option<RedisCheck> {
        Some(RedisCheck {
            user: text_or(&self.user, "")?,
            password: self.password()?,
            replication: self.replication()?,
        })
    }

    fn password(&self) -> Option<Option<Secret>> {
        let file = optional(&self.password_file, |file| {
            Some(Secret::File(PathBuf::from(file)))
        })?;
        let variable = optional(&self.password_env, |name| Some(Secret::Env(name.clone())))?;
        Some(file.or(variable))
    }

    fn replication(&self) -> Option<Replication> {
        let state = self.replication.or(ReplicationState::default())?;
        Some(Replication {
            writable: optional(&self.writable, |writable| Some(*writable))?,
            must_run: state == ReplicationState::Running,
            max_lag_s: optional(&self.max_lag_s, |lag| u32::try_from(*lag).ok())?,
            gtid: text_or(&self.gtid, "")?,
            observe: false,
        })
    }

    fn fastcgi(&self) -> Option<FastcgiCheck> {
        Some(FastcgiCheck {
            path: text_or(&self.path, "/ping")?,
            status: self.status()?,
            body: text_or(&self.body, "")?,
        })
    }

    fn grpc(&self) -> Option<GrpcCheck> {
        let with_tls = self.tls.or(false)?;
        Some(GrpcCheck {
            tls: if with_tls { Some(self.tls()?) } else { None },
            service: text_or(&self.grpc_service, "")?,
        })
    }

    fn dns(&self, protocol: Protocol) -> Option<DnsCheck> {
        Some(DnsCheck {
            name: self.name.given()?.clone(),
            query_type: self.query_type.or(DnsType::default())?,
            expect: self.expected_address()?,
            is_tcp: protocol == Protocol::Tcp,
        })
    }

    fn exec(&self) -> Option<ExecCheck> {
        let (program, args) = self.command.given()?.split_first()?;
        Some(ExecCheck {
            program: PathBuf::from(program),
            args: args.to_vec(),
        })
    }
}

/// A value that may be left out. The outer `None` = it cannot be used.
fn optional<T, U>(field: &Field<T>, convert: impl FnOnce(&T) -> Option<U>) -> Option<Option<U>> {
    match field {
        Field::Given(value) => convert(value).map(Some),
        Field::Absent => Some(None),
        Field::Unreadable => None,
    }
}

/// The text, or what applies without one.
fn text_or(field: &Field<String>, default: &str) -> Option<String> {
    let given = optional(field, |text| Some(text.clone()))?;
    Some(given.unwrap_or_else(|| default.to_owned()))
}
