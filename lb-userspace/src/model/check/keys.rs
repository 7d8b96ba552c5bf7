//! Which keys of the config file a check of each type has.

use super::CheckType;
use super::CheckType::{
    Agent, Dns, Exec, Fastcgi, Grpc, Http, Https, Icmp, Mysql, Postgres, Redis, Tcp, Udp,
};

const ALL: &[CheckType] = &CheckType::ALL;
/// Those that have a port of the backend's to ask at.
const WITH_PORT: &[CheckType] = &[
    Tcp, Http, Https, Mysql, Postgres, Redis, Fastcgi, Grpc, Udp, Dns, Exec, Agent,
];
/// Those whose packets lbd sends itself.
const WITH_SOURCE: &[CheckType] = &[
    Tcp, Http, Https, Mysql, Postgres, Redis, Fastcgi, Grpc, Udp, Dns, Icmp, Agent,
];
/// Those that may ask at the VIP: what is asked is the service, or at least who answers for it.
const WITH_WAY: &[CheckType] = &[
    Tcp, Http, Https, Mysql, Postgres, Redis, Fastcgi, Grpc, Udp, Dns, Icmp,
];
const WEB: &[CheckType] = &[Http, Https];
const TLS: &[CheckType] = &[Https, Grpc];
const DATABASES: &[CheckType] = &[Mysql, Postgres, Redis];

/// Every key of a check, with the types that have it.
pub const KEYS: &[(&str, &[CheckType])] = &[
    ("type", ALL),
    ("interval", ALL),
    ("fast_interval", ALL),
    ("timeout", ALL),
    ("rise", ALL),
    ("fall", ALL),
    ("port", WITH_PORT),
    ("source", WITH_SOURCE),
    ("via", WITH_WAY),
    ("method", WEB),
    ("path", &[Http, Https, Fastcgi]),
    ("host", WEB),
    ("headers", WEB),
    ("status", &[Http, Https, Fastcgi]),
    ("body", &[Http, Https, Fastcgi]),
    ("version", WEB),
    ("tls", &[Grpc]),
    ("tls_name", TLS),
    ("verify", TLS),
    ("ca_file", TLS),
    ("min_valid_days", TLS),
    ("user", DATABASES),
    ("password_file", DATABASES),
    ("password_env", DATABASES),
    ("database", &[Postgres]),
    ("query", &[Mysql, Postgres]),
    ("writable", DATABASES),
    ("replication", DATABASES),
    ("max_lag", DATABASES),
    ("gtid", &[Mysql]),
    ("grpc_service", &[Grpc]),
    ("send", &[Tcp, Udp, Agent]),
    ("expect", &[Tcp, Udp, Dns]),
    ("name", &[Dns]),
    ("query_type", &[Dns]),
    ("command", &[Exec]),
];

/// The types whose checks have a key.
pub fn types_of(key: &str) -> &'static [CheckType] {
    let entry = KEYS.iter().find(|(known, _)| *known == key);
    entry.map_or(&[], |(_, types)| types)
}

/// The keys of a type's checks, in the order of [`KEYS`].
pub fn keys_of(check_type: CheckType) -> impl Iterator<Item = &'static str> {
    let its = KEYS
        .iter()
        .filter(move |(_, types)| types.contains(&check_type));
    its.map(|(key, _)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_stands_once_and_each_type_has_those_of_all() {
        let mut keys: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), KEYS.len());
        for check_type in CheckType::ALL {
            assert!(keys_of(check_type).count() >= 6, "{check_type:?}");
        }
        let icmp: Vec<&str> = keys_of(Icmp).collect();
        assert_eq!(icmp.last(), Some(&"via"));
        assert_eq!(types_of("gtid"), [Mysql]);
        assert_eq!(types_of("colour"), []);
    }
}
