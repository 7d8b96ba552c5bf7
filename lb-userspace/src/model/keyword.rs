use super::check::{
    CheckMode, CheckType, DnsType, HttpVersion, OwnChecks, ReplicationState, Role, Via,
};
use super::{
    AdminState, Fit, ForwardMode, Health, OnAllDown, OnDown, OnRemove, OnStop, Protocol, Scheduler,
    UdpFlow, XdpMode,
};
use crate::suggest::closest;

/// A closed set of words with one spelling everywhere: config file, API and command line.
pub trait Keyword: Copy + PartialEq + Sized + 'static {
    /// The config key that takes these words.
    const KEY: &'static str;
    /// Every value with its word; the first is the default.
    const ALL: &'static [(Self, &'static str)];

    /// The word for this value.
    fn word(self) -> &'static str {
        let entry = Self::ALL.iter().find(|(value, _)| *value == self);
        entry.map_or("", |(_, word)| word)
    }

    /// The value for a word.
    ///
    /// # Errors
    /// [`UnknownWord`], with the words that would do.
    fn from_word(word: &str) -> Result<Self, UnknownWord> {
        let entry = Self::ALL.iter().find(|(_, known)| *known == word);
        entry.map(|(value, _)| *value).ok_or_else(|| UnknownWord {
            key: Self::KEY,
            word: word.to_owned(),
            known: Self::ALL.iter().map(|(_, known)| *known).collect(),
        })
    }
}

/// A word that is not in the set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {key} `{word}`")]
pub struct UnknownWord {
    key: &'static str,
    word: String,
    known: Vec<&'static str>,
}

impl UnknownWord {
    /// What to write instead.
    pub fn help(&self) -> String {
        let list = self.known.join("`, `");
        match closest(&self.word, self.known.iter().copied()) {
            Some(word) => format!("did you mean `{word}`? It is one of `{list}`"),
            None => format!("write one of `{list}`"),
        }
    }
}

impl Keyword for Protocol {
    const KEY: &'static str = "protocol";
    const ALL: &'static [(Self, &'static str)] = &[(Self::Tcp, "tcp"), (Self::Udp, "udp")];
}

impl Keyword for Scheduler {
    const KEY: &'static str = "scheduler";
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Maglev, "maglev"), (Self::RoundRobin, "round-robin")];
}

impl Keyword for ForwardMode {
    const KEY: &'static str = "forward";
    const ALL: &'static [(Self, &'static str)] = &[(Self::Dsr, "dsr"), (Self::Nat, "nat")];
}

impl Keyword for XdpMode {
    const KEY: &'static str = "xdp";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Auto, "auto"),
        (Self::Native, "native"),
        (Self::Generic, "generic"),
    ];
}

impl Keyword for UdpFlow {
    const KEY: &'static str = "flow";
    const ALL: &'static [(Self, &'static str)] = &[(Self::Pinned, "pinned"), (Self::Hash, "hash")];
}

impl Keyword for OnDown {
    const KEY: &'static str = "on_down";
    const ALL: &'static [(Self, &'static str)] = &[(Self::Keep, "keep"), (Self::Reset, "reset")];
}

impl Keyword for OnRemove {
    const KEY: &'static str = "on_remove";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Keep, "keep"),
        (Self::Reset, "reset"),
        (Self::Drop, "drop"),
    ];
}

impl Keyword for OnAllDown {
    const KEY: &'static str = "on_all_down";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::LastGood, "last_good"),
        (Self::Reset, "reset"),
        (Self::Drop, "drop"),
    ];
}

impl Keyword for OnStop {
    const KEY: &'static str = "on_stop";
    const ALL: &'static [(Self, &'static str)] = &[(Self::Keep, "keep"), (Self::Detach, "detach")];
}

impl Keyword for AdminState {
    const KEY: &'static str = "admin";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Ready, "ready"),
        (Self::Drain, "drain"),
        (Self::Maint, "maint"),
    ];
}

impl Keyword for Health {
    const KEY: &'static str = "health";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Unknown, "unknown"),
        (Self::Up, "up"),
        (Self::Down, "down"),
    ];
}

impl Keyword for Fit {
    const KEY: &'static str = "fit";
    const ALL: &'static [(Self, &'static str)] = &[(Self::Fit, "fit"), (Self::Unfit, "unfit")];
}

/// A check has no default type: the first is an example.
impl Keyword for CheckType {
    const KEY: &'static str = "type";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Tcp, "tcp"),
        (Self::Http, "http"),
        (Self::Https, "https"),
        (Self::Mysql, "mysql"),
        (Self::Postgres, "postgres"),
        (Self::Redis, "redis"),
        (Self::Fastcgi, "fastcgi"),
        (Self::Grpc, "grpc"),
        (Self::Udp, "udp"),
        (Self::Dns, "dns"),
        (Self::Icmp, "icmp"),
        (Self::Exec, "exec"),
        (Self::Agent, "agent"),
    ];
}

impl Keyword for CheckMode {
    const KEY: &'static str = "check_mode";
    const ALL: &'static [(Self, &'static str)] = &[(Self::All, "all"), (Self::Any, "any")];
}

impl Keyword for Role {
    const KEY: &'static str = "role";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::None, "none"),
        (Self::Writer, "writer"),
        (Self::Reader, "reader"),
    ];
}

impl Keyword for OwnChecks {
    const KEY: &'static str = "checks";
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Service, "service"), (Self::None, "none")];
}

impl Keyword for Via {
    const KEY: &'static str = "via";
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Direct, "direct"), (Self::Datapath, "datapath")];
}

impl Keyword for HttpVersion {
    const KEY: &'static str = "version";
    const ALL: &'static [(Self, &'static str)] = &[(Self::Http1, "1.1"), (Self::Http2, "2")];
}

impl Keyword for ReplicationState {
    const KEY: &'static str = "replication";
    const ALL: &'static [(Self, &'static str)] = &[(Self::Any, "any"), (Self::Running, "running")];
}

impl Keyword for DnsType {
    const KEY: &'static str = "query_type";
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::A, "A"),
        (Self::Aaaa, "AAAA"),
        (Self::Ns, "NS"),
        (Self::Soa, "SOA"),
    ];
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl std::fmt::Display for XdpMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<K: Keyword + std::fmt::Debug>() {
        for (value, word) in K::ALL {
            assert_eq!(value.word(), *word);
            assert_eq!(K::from_word(word).as_ref(), Ok(value));
        }
    }

    #[test]
    fn words_and_values_map_both_ways() {
        round_trip::<Protocol>();
        round_trip::<Scheduler>();
        round_trip::<ForwardMode>();
        round_trip::<XdpMode>();
        round_trip::<UdpFlow>();
        round_trip::<OnDown>();
        round_trip::<OnRemove>();
        round_trip::<OnAllDown>();
        round_trip::<OnStop>();
        round_trip::<AdminState>();
        round_trip::<Health>();
        round_trip::<Fit>();
        round_trip::<CheckType>();
        round_trip::<CheckMode>();
        round_trip::<Role>();
        round_trip::<OwnChecks>();
        round_trip::<Via>();
        round_trip::<HttpVersion>();
        round_trip::<ReplicationState>();
        round_trip::<DnsType>();
        assert_eq!(CheckType::ALL, *words_of_types());
    }

    fn words_of_types() -> Vec<CheckType> {
        let entries = <CheckType as Keyword>::ALL.iter();
        entries.map(|(value, _)| *value).collect()
    }

    #[test]
    fn a_misspelt_word_gets_a_suggestion() {
        let error = Scheduler::from_word("roundrobin").unwrap_err();
        assert_eq!(error.to_string(), "unknown scheduler `roundrobin`");
        assert_eq!(
            error.help(),
            "did you mean `round-robin`? It is one of `maglev`, `round-robin`"
        );
        let error = Protocol::from_word("sctp-and-more").unwrap_err();
        assert_eq!(error.help(), "write one of `tcp`, `udp`");
    }
}
