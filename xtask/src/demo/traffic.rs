//! What the demo measures: who answers, before and after a change, and under it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lb_lab::client::{Counts, Load, Tally};
use lb_lab::wait::wait_until;

use super::stage::{BACKENDS, Family, SITES, Site, Stage};

/// Requests of each kind in the first part. A multiple of the number of backends, so that round robin comes out
/// even.
pub(super) const REQUEST_COUNT: u32 = 300;

/// Answers that each phase of the second part waits for.
const PHASE_ANSWER_COUNT: u32 = 600;
/// How long a phase may take.
const PHASE_TIMEOUT: Duration = Duration::from_secs(30);

/// The answers of one site in one family. They are kept in the order of [`SITES`], then of the
/// families.
pub(super) struct Shares {
    pub(super) family: Family,
    pub(super) counts: Counts,
}

/// Sends the requests of the first part: every site, in every family.
pub(super) fn measure_shares(stage: &Stage) -> Result<Vec<Shares>> {
    let kinds = SITES
        .iter()
        .flat_map(|site| Family::ALL.map(|family| (site, family)));
    kinds
        .map(|(site, family)| {
            let address = stage.resolve(site, family)?;
            let counts = stage
                .client()
                .http_get_many(address, REQUEST_COUNT)
                .with_context(|| format!("http://{}/ over {}", site.host, family.word()))?;
            check_shares(site, &counts)?;
            Ok(Shares { family, counts })
        })
        .collect()
}

/// Every backend of the service answers, nobody else does, and round robin is exact.
fn check_shares(site: &Site, counts: &Counts) -> Result<()> {
    if !counts.keys().map(String::as_str).eq(BACKENDS) {
        bail!(
            "{} was answered by {counts:?}, not by each of {}",
            site.host,
            BACKENDS.join(", ")
        );
    }
    let (least, most) = (counts.values().min(), counts.values().max());
    let spread = most.unwrap_or(&0) - least.unwrap_or(&0);
    if site.scheduler == "round-robin" && spread > 1 {
        bail!("round robin is uneven: {counts:?}");
    }
    Ok(())
}

/// A stretch of the continuous load.
pub(super) struct Phase {
    pub(super) title: String,
    pub(super) tally: Tally,
}

/// The second part, under continuous traffic in both families: takes a backend away from the first site and adds
/// another, kills lbd and starts it again.
pub(super) fn change_under_load(stage: &mut Stage) -> Result<Vec<Phase>> {
    let site = &SITES[0];
    let loads = Loads::start(stage, site)?;
    let mut phases = vec![loads.phase("before")?];

    let removed = BACKENDS[1];
    for family in Family::ALL {
        stage
            .lbd()
            .ctl_ok(&["backend", "remove", site.service(family), removed])?;
    }
    await_rings(stage, site)?;
    phases.push(loads.phase(&format!("{removed} removed"))?);

    let added = stage.machine("web4")?;
    for family in Family::ALL {
        let address = added.address_like(site.vip(family)).to_string();
        let service = site.service(family);
        let weight = ["--weight", "100", "--name", &added.name];
        stage
            .lbd()
            .ctl_ok(&[&["backend", "add", service, &address], &weight[..]].concat())?;
    }
    let added = added.name.clone();
    await_rings(stage, site)?;
    phases.push(loads.phase(&format!("{added} added"))?);

    stage.kill_lbd()?;
    phases.push(loads.phase("lbd killed")?);
    stage.restart_lbd()?;
    phases.push(loads.phase("lbd back")?);
    check_phases(&phases, removed, &added)?;
    Ok(phases)
}

/// Waits until the new ring is in force: new connections go by it from then on.
fn await_rings(stage: &Stage, site: &Site) -> Result<()> {
    Family::ALL
        .iter()
        .try_for_each(|family| stage.lbd().await_ring(site.service(*family)))
}

/// One sender for each family.
struct Loads(Vec<Load>);

impl Loads {
    fn start(stage: &Stage, site: &Site) -> Result<Self> {
        let addresses: Vec<SocketAddr> = Family::ALL
            .iter()
            .map(|family| stage.resolve(site, *family))
            .collect::<Result<_>>()?;
        Ok(Self(
            addresses
                .into_iter()
                .map(|address| stage.client().start_load(address))
                .collect(),
        ))
    }

    /// Counts from now on. Requests that were under way when the phase began are counted as well: their failures
    /// are failures, and their answers are those of the time before.
    fn phase(&self, title: &str) -> Result<Phase> {
        let under_way = self.finish_under_way()?;
        self.await_answers(title, PHASE_ANSWER_COUNT)?;
        let mut tally = self.take();
        tally.failed += under_way.failed;
        tally.reasons.extend(under_way.reasons);
        Ok(Phase {
            title: title.to_owned(),
            tally,
        })
    }

    /// Waits until every sender has ended the request that it was at.
    fn finish_under_way(&self) -> Result<Tally> {
        let mut finished = Tally::default();
        for load in &self.0 {
            let before = ended(&load.tally());
            wait_until("the request under way", PHASE_TIMEOUT, || {
                Ok((ended(&load.tally()) > before).then_some(()))
            })?;
            merge(&mut finished, load.take());
        }
        Ok(finished)
    }

    fn await_answers(&self, title: &str, count: u32) -> Result<()> {
        let waited = wait_until(&format!("{count} answers ({title})"), PHASE_TIMEOUT, || {
            let answered: u32 = self.0.iter().map(|load| load.tally().ok_total()).sum();
            Ok((answered >= count).then_some(()))
        });
        waited.with_context(|| {
            let reasons: Vec<String> = self
                .0
                .iter()
                .flat_map(|load| load.tally().reasons)
                .take(3)
                .collect();
            format!("requests fail: {}", reasons.join("; "))
        })
    }

    fn take(&self) -> Tally {
        let mut sum = Tally::default();
        self.0.iter().for_each(|load| merge(&mut sum, load.take()));
        sum
    }
}

fn ended(tally: &Tally) -> u32 {
    tally.ok_total() + tally.failed
}

fn merge(sum: &mut Tally, tally: Tally) {
    for (backend, count) in tally.ok {
        *sum.ok.entry(backend).or_default() += count;
    }
    sum.failed += tally.failed;
    sum.reasons.extend(tally.reasons);
}

/// No request fails, and each goes to a backend that may have it.
fn check_phases(phases: &[Phase], removed: &str, added: &str) -> Result<()> {
    let [_, without, with @ ..] = phases else {
        bail!("{} phases are too few", phases.len())
    };
    if let Some(count) = without.tally.ok.get(removed) {
        bail!("{removed} answered {count} requests after it was removed");
    }
    for phase in with {
        if !phase.tally.ok.contains_key(added) {
            bail!(
                "{added} was added and answered none of {} requests ({})",
                phase.tally.ok_total(),
                phase.title
            );
        }
    }
    for phase in phases {
        if phase.tally.failed > 0 {
            let (failed, reasons) = (phase.tally.failed, phase.tally.reasons.join("; "));
            bail!("{failed} requests failed ({}): {reasons}", phase.title);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(ok: &[(&str, u32)], failed: u32) -> Phase {
        let ok = ok
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        Phase {
            title: String::new(),
            tally: Tally {
                ok,
                failed,
                reasons: Vec::new(),
            },
        }
    }

    #[test]
    fn changes_are_judged_by_who_answers_and_what_fails() {
        let judge = |phases: [Phase; 3]| check_phases(&phases, "web2", "web4");
        let before = || phase(&[("web1", 5), ("web2", 5)], 0);
        let (without, with) = (|| phase(&[("web1", 9)], 0), || phase(&[("web4", 3)], 0));
        assert!(judge([before(), without(), with()]).is_ok());
        assert!(judge([before(), phase(&[("web2", 1)], 0), with()]).is_err());
        assert!(judge([before(), without(), without()]).is_err());
        assert!(judge([before(), phase(&[("web1", 9)], 1), with()]).is_err());
    }

    #[test]
    fn uneven_round_robin_and_a_silent_backend_are_errors() {
        let counts = |shares: [u32; 3]| -> Counts {
            BACKENDS
                .iter()
                .map(|name| (*name).to_owned())
                .zip(shares)
                .collect()
        };
        let [maglev, round_robin] = &SITES;
        assert!(check_shares(round_robin, &counts([10, 11, 10])).is_ok());
        assert!(check_shares(round_robin, &counts([9, 11, 10])).is_err());
        assert!(check_shares(maglev, &counts([9, 14, 7])).is_ok());
        assert!(check_shares(maglev, &Counts::from([("web1".to_owned(), 30)])).is_err());
    }
}
