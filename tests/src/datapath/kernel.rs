//! The loaded program, run packet by packet with `BPF_PROG_TEST_RUN`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, RingBuf};
use aya::programs::{ProgramFd, ProgramInfo, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use bytemuck::Zeroable;
use lb_common::abi::{
    Address, Backend, BackendSignals, BackendStats, EndpointKey, FLOW_CHANGES_SETS,
    FLOW_SETS_GLOBAL, FlowChanges, FlowSet, HASH_KEY_GLOBAL, NOTES_CHANGES_GLOBAL, NatReply,
    Neighbour, NeighbourKey, NeighbourWanted, PROGRAM_NAME, RingBlock, Route, Service, ServiceLine,
    Vip, flow_changes_len, map_name,
};
use lb_common::datapath::Verdict;
use lb_common::drop_reason::{DropReason, PASSED_INDEX};
use lb_common::limits::COUNTERS_PER_SERVICE;

use super::tables::{FLOW_SETS, Peers, Tables, Traces};
use super::world::EGRESS_IFINDEX;

/// A map type of lb-common in aya's eyes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plain<T: Copy + 'static>(pub T);

// SAFETY: used below only with lb-common's ABI types, which are `bytemuck::Pod`: no padding, valid
// for any bytes.
unsafe impl<T: bytemuck::Pod> Pod for Plain<T> {}

/// The program, loaded but attached to nothing.
#[derive(Debug)]
pub struct LoadedDatapath {
    ebpf: Ebpf,
}

/// What stands in the lines of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// Copies of the services.
    Filled,
    /// Nothing: services are found in the hash table.
    Empty,
    /// Something wrong, under a sequence number that says so.
    BeingWritten,
    /// Another service.
    OfOthers,
}

impl Lines {
    /// Every state.
    pub const ALL: [Self; 4] = [
        Self::Filled,
        Self::Empty,
        Self::BeingWritten,
        Self::OfOthers,
    ];
}

/// What differs between uses of the flow table.
#[derive(Clone, Copy, Debug)]
pub struct FlowTable {
    /// Its capacity. Unit: sets.
    pub set_count: u32,
    /// Whether there are peers.
    pub peers: Peers,
}

/// Where `cargo xtask build` puts an object file.
pub fn object_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../target/bpf")
        .join(name)
}

impl LoadedDatapath {
    /// Loads the program with a small flow table and fills its maps.
    ///
    /// # Errors
    /// What the kernel refused, with the verifier's log.
    pub fn load(tables: &Tables) -> Result<Self> {
        Self::load_with_lines(tables, Lines::Filled)
    }

    /// As [`LoadedDatapath::load`], with the service lines in some state.
    ///
    /// # Errors
    /// What the kernel refused, with the verifier's log.
    pub fn load_with_lines(tables: &Tables, lines: Lines) -> Result<Self> {
        Self::load_sized(
            tables,
            FlowTable {
                set_count: FLOW_SETS,
                peers: Peers::Some,
            },
            lines,
        )
    }

    /// As [`LoadedDatapath::load`] with another flow table.
    ///
    /// # Errors
    /// What the kernel refused, with the verifier's log.
    pub fn load_sized(tables: &Tables, flows: FlowTable, lines: Lines) -> Result<Self> {
        let path = object_path("lb-ebpf");
        let object = std::fs::read(&path)
            .with_context(|| format!("{}: run `cargo xtask build` first", path.display()))?;
        let notes_changes = u32::from(flows.peers == Peers::Some);
        let mut ebpf = EbpfLoader::new()
            .override_global(HASH_KEY_GLOBAL, &tables.hash_key, true)
            .map_max_entries(map_name::FLOWS, flows.set_count)
            .map_max_entries(map_name::FLOW_ORIGINS, flows.set_count)
            .map_max_entries(map_name::FLOW_CHANGES, flow_changes_len(flows.set_count))
            .override_global(FLOW_SETS_GLOBAL, &flows.set_count, true)
            .override_global(NOTES_CHANGES_GLOBAL, &notes_changes, true)
            .load(&object)?;
        let program: &mut Xdp = ebpf
            .program_mut(PROGRAM_NAME)
            .context("the object has no program lb_xdp")?
            .try_into()?;
        program.load()?;
        let mut loaded = Self { ebpf };
        loaded.fill(tables, lines)?;
        Ok(loaded)
    }

    /// A handle on the program.
    ///
    /// # Errors
    /// If the descriptor cannot be duplicated.
    pub fn program_fd(&mut self) -> Result<ProgramFd> {
        Ok(self.program()?.fd()?.try_clone()?)
    }

    /// What the kernel says about the loaded program.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn program_info(&mut self) -> Result<ProgramInfo> {
        Ok(self.program()?.info()?)
    }

    /// The maps by name.
    pub fn maps(&self) -> impl Iterator<Item = (&str, &aya::maps::Map)> {
        self.ebpf.maps()
    }

    fn program(&mut self) -> Result<&mut Xdp> {
        let program = self
            .ebpf
            .program_mut(PROGRAM_NAME)
            .context("the program was loaded")?;
        Ok(program.try_into()?)
    }

    fn map(&mut self, name: &'static str) -> Result<&mut aya::maps::Map> {
        self.ebpf
            .map_mut(name)
            .with_context(|| format!("the object has no map {name}"))
    }

    fn fill(&mut self, tables: &Tables, lines: Lines) -> Result<()> {
        let mut rings: Array<&mut MapData, Plain<RingBlock>> =
            self.map(map_name::RINGS)?.try_into()?;
        for (block, slots) in &tables.ring_blocks {
            let slots: RingBlock = slots[..].try_into().context("a whole block")?;
            rings.set(*block, Plain(slots), 0)?;
        }
        let mut backends: Array<&mut MapData, Plain<Backend>> =
            self.map(map_name::BACKENDS)?.try_into()?;
        for (id, backend) in &tables.backends {
            backends.set(u32::from(*id), Plain(*backend), 0)?;
        }
        self.fill_hash::<EndpointKey, Service>(map_name::SERVICES, &tables.services)?;
        self.fill_lines(&tables.services, lines)?;
        self.fill_hash::<Address, Vip>(map_name::VIPS, &tables.vips)?;
        self.fill_hash::<EndpointKey, NatReply>(map_name::NAT_REPLIES, &tables.nat_replies)?;
        self.fill_hash::<NeighbourKey, Neighbour>(map_name::NEIGHBOURS, &tables.neighbours)?;
        if !tables.flows.is_empty() {
            let mut flows: Array<&mut MapData, Plain<FlowSet>> =
                self.map(map_name::FLOWS)?.try_into()?;
            for (index, set) in (0..).zip(tables.flow_sets(flows.len())) {
                flows.set(index, Plain(set), 0)?;
            }
        }
        let mut routes: LpmTrie<&mut MapData, [u8; 16], Plain<Route>> =
            self.map(map_name::ROUTES)?.try_into()?;
        for (key, route) in &tables.routes {
            routes.insert(&Key::new(key.prefix_len, key.octets), Plain(*route), 0)?;
        }
        Ok(())
    }

    /// Nothing runs yet: lines need no sequence, but for those that pretend to be written.
    fn fill_lines(
        &mut self,
        services: &BTreeMap<EndpointKey, Service>,
        lines: Lines,
    ) -> Result<()> {
        let mut array: Array<&mut MapData, Plain<ServiceLine>> =
            self.map(map_name::SERVICE_LINES)?.try_into()?;
        for (key, service) in services {
            let right = ServiceLine {
                key: *key,
                service: *service,
                ..Zeroable::zeroed()
            };
            let wrong = Service {
                ring_len: 0,
                id: 63,
                ..*service
            };
            let line = match lines {
                Lines::Filled => right,
                Lines::Empty => continue,
                Lines::BeingWritten => ServiceLine {
                    service: wrong,
                    sequence: 7,
                    ..right
                },
                Lines::OfOthers => {
                    let key = EndpointKey {
                        port_be: !key.port_be,
                        ..*key
                    };
                    ServiceLine {
                        key,
                        service: wrong,
                        ..right
                    }
                }
            };
            array.set(ServiceLine::index(key), Plain(line), 0)?;
        }
        Ok(())
    }

    fn fill_hash<K: bytemuck::Pod + Ord, V: bytemuck::Pod>(
        &mut self,
        name: &'static str,
        entries: &BTreeMap<K, V>,
    ) -> Result<()> {
        let mut map: HashMap<&mut MapData, Plain<K>, Plain<V>> = self.map(name)?.try_into()?;
        for (key, value) in entries {
            map.insert(Plain(*key), Plain(*value), 0)?;
        }
        Ok(())
    }

    /// Runs the program on one frame; returns its verdict and the frame as it left it. The kernel
    /// does not tell where a redirected frame goes: fixtures have one other interface.
    ///
    /// # Errors
    /// If the kernel refuses to run it, or the program returns something that is no verdict.
    pub fn run(&mut self, frame: &[u8]) -> Result<(Verdict, Vec<u8>)> {
        let mut output = vec![0; frame.len() + 256];
        let result = self.program()?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            ..TestRunOptions::default()
        })?;
        output.truncate(result.data_size_out as usize);
        let verdict = match result.return_value {
            1 => Verdict::Drop(DropReason::NoBackend),
            2 => Verdict::Pass,
            3 => Verdict::Transmit,
            4 => Verdict::Redirect(EGRESS_IFINDEX),
            other => anyhow::bail!("the program returned {other}, which is no XDP action we use"),
        };
        Ok((verdict, output))
    }

    /// What the program has left behind in its maps.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn traces(&mut self) -> Result<Traces> {
        let mut traces = self.counters()?;
        let flows: Array<&mut MapData, Plain<FlowSet>> = self.map(map_name::FLOWS)?.try_into()?;
        for set in flows.iter() {
            traces.push_flows(&set?.0);
        }
        let changes: Array<&mut MapData, Plain<FlowChanges>> =
            self.map(map_name::FLOW_CHANGES)?.try_into()?;
        for (first_set, changes) in (0..).step_by(FLOW_CHANGES_SETS).zip(changes.iter()) {
            let sets = (first_set..).zip(changes?.0);
            let noted = sets.filter_map(|(set, is_noted)| (is_noted != 0).then_some(set));
            traces.changed_sets.extend(noted);
        }
        let stamps: Array<&mut MapData, u64> = self.map(map_name::SUPPRESSED)?.try_into()?;
        for (service_id, stamp) in (0..).zip(stamps.iter()) {
            if stamp? != 0 {
                traces.suppressed.insert(service_id);
            }
        }
        let mut events: RingBuf<&mut MapData> = self.map(map_name::EVENTS)?.try_into()?;
        while let Some(event) = events.next() {
            ensure!(
                event.len() == size_of::<NeighbourWanted>(),
                "an event of {} bytes",
                event.len()
            );
            traces.push_wanted(&bytemuck::pod_read_unaligned(&event));
        }
        Ok(traces)
    }

    /// The counters alone.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn counters(&mut self) -> Result<Traces> {
        let mut traces = Traces::default();
        self.read_backend_stats(&mut traces)?;
        self.read_signals(&mut traces)?;
        self.read_counters(&mut traces)?;
        Ok(traces)
    }

    fn read_backend_stats(&mut self, traces: &mut Traces) -> Result<()> {
        let stats: PerCpuArray<&mut MapData, Plain<BackendStats>> =
            self.map(map_name::BACKEND_STATS)?.try_into()?;
        // Fixtures use small ids only.
        for id in 0..1_000 {
            let mut sum = BackendStats::default();
            stats.get(&id, 0)?.iter().for_each(|cpu| sum.add(&cpu.0));
            if sum != BackendStats::default() {
                traces.backends.insert(id as u16, sum);
            }
        }
        Ok(())
    }

    fn read_signals(&mut self, traces: &mut Traces) -> Result<()> {
        let signals: PerCpuArray<&mut MapData, Plain<BackendSignals>> =
            self.map(map_name::BACKEND_SIGNALS)?.try_into()?;
        for id in 0..1_000 {
            let mut sum = BackendSignals::default();
            signals.get(&id, 0)?.iter().for_each(|cpu| sum.add(&cpu.0));
            if sum != BackendSignals::default() {
                traces.signals.insert(id as u16, sum);
            }
        }
        Ok(())
    }

    fn read_counters(&mut self, traces: &mut Traces) -> Result<()> {
        let counters: PerCpuArray<&mut MapData, Plain<u64>> =
            self.map(map_name::COUNTERS)?.try_into()?;
        for index in 0..COUNTERS_PER_SERVICE * 64 {
            let sum = counters.get(&index, 0)?.iter().map(|cpu| cpu.0).sum();
            if sum == 0 {
                continue;
            }
            let (service_id, number) = (index / COUNTERS_PER_SERVICE, index % COUNTERS_PER_SERVICE);
            if number == PASSED_INDEX {
                ensure!(service_id == 0, "packets passed for service {service_id}");
                traces.passed = sum;
            } else {
                let reason = DropReason::ALL
                    .into_iter()
                    .find(|reason| *reason as u32 == number);
                let reason = reason.with_context(|| format!("unknown drop reason {number}"))?;
                traces.drops.insert((service_id as u16, reason), sum);
            }
        }
        Ok(())
    }
}
