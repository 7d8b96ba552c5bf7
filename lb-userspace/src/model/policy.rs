//! What becomes of flows when backends change: the service's policies, and the state of its backends.

/// What the operator has decided about a backend. Not in the config file: kept over reloads and
/// restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminState {
    /// In service.
    #[default]
    Ready,
    /// No new flows; those that it has are kept.
    Drain,
    /// No new flows, and those that it has are ended as [`OnRemove`] says.
    Maint,
}

/// Whether a backend answers, as far as is known. Not in the config file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Nobody has said; counts as up.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

/// Whether a backend is one that its service is for, as far as is known: of a database service with a
/// role ([`super::check::Role`]), the ones that have it. Not in the config file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fit {
    /// It is.
    #[default]
    Fit,
    /// It is not, or nobody has said that it is the writer: it gets no new flow, and those that it has
    /// are ended as [`OnRemove`] says.
    Unfit,
}

/// What a backend has said of itself, by HAProxy's agent-check. Not in the config file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AgentState {
    /// `None` = nothing. The stricter of this and the operator's word applies.
    pub admin: Option<AdminState>,
    /// Its weight as a part of the configured one; `None` = all of it, 0 = drain. Unit: per cent.
    pub weight_percent: Option<u16>,
}

/// How soon a change takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Urgency {
    /// After the prepare phase ([`lb_common::limits::PREPARE_MS`]), so that handshakes under way
    /// complete where they began.
    #[default]
    Planned,
    /// At once, at the price of those handshakes: a death, or an operator's `--strict`.
    Immediate,
}

/// Where the flows of a UDP service go when the ring changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UdpFlow {
    /// Each flow stays where it began: all of them are in the flow table.
    #[default]
    Pinned,
    /// Where their hash says: nothing is kept, and a change of the ring moves flows at once.
    Hash,
}

/// What becomes of the flows of a backend that is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnDown {
    /// They still go there: a false alarm does no harm.
    #[default]
    Keep,
    /// Their packets are answered with RST.
    Reset,
}

/// What becomes of the flows of a backend that is removed or in maintenance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnRemove {
    /// They still go there, until they end.
    #[default]
    Keep,
    /// Their packets are answered with RST.
    Reset,
    /// Their packets are dropped.
    Drop,
}

/// What becomes of new flows while no backend may get any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnAllDown {
    /// They go where they went last.
    #[default]
    LastGood,
    /// They are answered with RST.
    Reset,
    /// They are dropped.
    Drop,
}

/// What an orderly stop of the daemon does to the datapath.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnStop {
    /// It goes on forwarding.
    #[default]
    Keep,
    /// VIPs, program and maps are taken off.
    Detach,
}

/// A service's decisions about its flows. The default is that of the config file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// Of no meaning for TCP, where it is [`UdpFlow::Pinned`].
    pub flow: UdpFlow,
    /// How long a backend's weight takes to grow to its full size when it becomes eligible again;
    /// 0 = it has it at once. Unit: seconds.
    pub slow_start_s: u32,
    /// Flows of backends that are down.
    pub on_down: OnDown,
    /// Flows of backends that are removed or in maintenance.
    pub on_remove: OnRemove,
    /// New flows while nobody is eligible.
    pub on_all_down: OnAllDown,
}
