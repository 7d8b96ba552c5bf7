use bytemuck::{Pod, Zeroable};

/// What one backend got and sent, on one CPU. A service's figures are the sum over its backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct BackendStats {
    /// Packets steered to the backend.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on, without the frame check sequence.
    pub bytes: u64,
    /// New flows: SYNs for TCP; for UDP, flows entered into the flow table.
    pub new_flows: u64,
    /// Replies rewritten on their way back (NAT only; with DSR they do not come this way).
    pub reply_packets: u64,
    /// Bytes of those replies.
    pub reply_bytes: u64,
}

impl BackendStats {
    /// Adds another CPU's figures, or another backend's.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.new_flows += other.new_flows;
        self.reply_packets += other.reply_packets;
        self.reply_bytes += other.reply_bytes;
    }
}

const _: () = assert!(size_of::<BackendStats>() == 40);

/// What the packets of one backend tell of its health without asking it, on one CPU. With DSR its answers do
/// not come this way, and only the clients' side is seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct BackendSignals {
    /// SYNs that were sent once more: the backend has not answered, or its answer was lost. A lower bound:
    /// in a flood some are not recognised.
    pub repeated_syns: u64,
    /// RSTs of clients.
    pub client_resets: u64,
    /// RSTs of the backend (NAT only).
    pub backend_resets: u64,
}

impl BackendSignals {
    /// Adds another CPU's figures, or another backend's.
    pub fn add(&mut self, other: &Self) {
        self.repeated_syns += other.repeated_syns;
        self.client_resets += other.client_resets;
        self.backend_resets += other.backend_resets;
    }
}

const _: () = assert!(size_of::<BackendSignals>() == 24);
