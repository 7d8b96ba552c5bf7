use super::CheckKind;

/// The language that a check speaks: the config file's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckType {
    /// A connection; and, if wanted, what is said there.
    Tcp,
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// MySQL and MariaDB.
    Mysql,
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
    /// FastCGI.
    Fastcgi,
    /// grpc.health.v1.
    Grpc,
    /// A datagram and its answer.
    Udp,
    /// DNS.
    Dns,
    /// An echo request.
    Icmp,
    /// A program.
    Exec,
    /// HAProxy's agent-check.
    Agent,
}

impl CheckType {
    /// Every one, in the order of the reference.
    pub const ALL: [Self; 13] = [
        Self::Tcp,
        Self::Http,
        Self::Https,
        Self::Mysql,
        Self::Postgres,
        Self::Redis,
        Self::Fastcgi,
        Self::Grpc,
        Self::Udp,
        Self::Dns,
        Self::Icmp,
        Self::Exec,
        Self::Agent,
    ];

    /// Whether it asks a database, and so can tell a primary from a replica.
    pub const fn is_database(self) -> bool {
        matches!(self, Self::Mysql | Self::Postgres | Self::Redis)
    }
}

impl CheckKind {
    /// The `type` that it is written as.
    pub const fn check_type(&self) -> CheckType {
        match self {
            Self::Tcp(_) => CheckType::Tcp,
            Self::Http(http) if http.tls.is_some() => CheckType::Https,
            Self::Http(_) => CheckType::Http,
            Self::Mysql(_) => CheckType::Mysql,
            Self::Postgres(_) => CheckType::Postgres,
            Self::Redis(_) => CheckType::Redis,
            Self::Fastcgi(_) => CheckType::Fastcgi,
            Self::Grpc(_) => CheckType::Grpc,
            Self::Udp(_) => CheckType::Udp,
            Self::Dns(_) => CheckType::Dns,
            Self::Icmp => CheckType::Icmp,
            Self::Exec(_) => CheckType::Exec,
            Self::Agent(_) => CheckType::Agent,
        }
    }
}

/// Which checks a backend has that lists none of its own: the config file's `checks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnChecks {
    /// Those of its service.
    #[default]
    Service,
    /// None.
    None,
}

/// What a replica's replication has to be like: the config file's `replication`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplicationState {
    /// It is not looked at.
    #[default]
    Any,
    /// It fetches and applies.
    Running,
}
