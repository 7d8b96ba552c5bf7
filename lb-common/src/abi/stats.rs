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
