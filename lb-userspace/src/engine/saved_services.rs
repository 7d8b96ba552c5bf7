//! What was changed at run time and must survive the daemon, in a file of its own.

use tracing::{info, warn};

use super::state_file::StateFile;
use crate::events::unix_ms;
use crate::model::Model;
use crate::model::saved::Saved;
use crate::model::shared::{Entry, Laid, Merged, Overlay};

/// The file of saved services, and what it is compared with.
#[derive(Debug)]
pub(super) struct SavedServices {
    file: StateFile,
    /// As the config file said when it was last read.
    configured: Model,
    /// What was in force before the restart, until something is in force again; `None` without peers.
    former: Option<Model>,
    /// What was written last.
    written: Option<Vec<u8>>,
    /// What was changed at run time, here and elsewhere; `None` without peers.
    overlay: Option<Overlay>,
    /// Of the changes up to a number.
    digest: Option<(u64, u64)>,
}

/// Whether changes are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// With peers.
    Peers,
    /// There is nobody to share them with.
    Nobody,
}

impl SavedServices {
    /// Reads what an earlier daemon has saved, and returns the model to start with, where the config
    /// file says `loaded`. What cannot be read is not resumed: forwarding by the config file is better
    /// than none.
    pub(super) fn resume(file: StateFile, loaded: Model, company: Company) -> (Self, Model) {
        let saved = read(&file);
        let overlay = (company == Company::Peers).then(|| overlay(saved.as_ref(), &loaded));
        let resumed = saved.map(|saved| saved.resume(loaded.clone()));
        let model = match resumed {
            None => loaded.clone(),
            Some(resumed) => {
                for change in &resumed.restored {
                    info!("made with lbctl before the restart, in force again: {change}");
                }
                for change in &resumed.dropped {
                    warn!("made with lbctl before the restart, dropped: {change}");
                }
                resumed.model
            }
        };
        let mut saved = Self {
            file,
            configured: loaded,
            former: None,
            written: None,
            overlay,
            digest: None,
        };
        if let Some(overlay) = &mut saved.overlay
            && overlay.is_empty()
        {
            // What was changed while there were no peers is theirs, too.
            overlay.note_change(&saved.configured, &model, unix_ms());
        }
        if saved.overlay.is_none() {
            return (saved, model);
        }
        let laid = saved.laid(&model).model;
        saved.former = Some(model);
        (saved, laid)
    }

    /// Where all that was changed at run time cannot be in force at the start: what else can be, the best first. What was
    /// in force before the restart, then this node's own configuration, both with the admin states that nodes have
    /// told. Nothing without peers.
    pub(super) fn fallbacks(&mut self) -> Vec<Model> {
        let Some(former) = self.former.take() else {
            return Vec::new();
        };
        let own = self.configured.clone().keeping_state_of(&former);
        [former, own].map(|model| self.with_states(&model)).into()
    }

    /// As [`Overlay::set_stamps_right`].
    pub(super) fn set_stamps_right(&mut self) -> bool {
        let overlay = self.overlay.as_mut();
        overlay.is_some_and(|overlay| overlay.set_stamps_right(unix_ms()))
    }

    /// The config file was read again: what was changed of services and backends is taken back, on all nodes.
    pub(super) fn reloaded(&mut self, configured: Model) {
        self.configured = configured;
        if let Some(overlay) = &mut self.overlay {
            overlay.note_reload(unix_ms());
        }
    }

    /// Something was changed on this node.
    pub(super) fn note_change(&mut self, before: &Model, after: &Model) {
        if let Some(overlay) = &mut self.overlay {
            overlay.note_change(before, after, unix_ms());
        }
    }

    /// Takes a peer's words over.
    pub(super) fn merge_shared(&mut self, entries: Vec<Entry>) -> Merged {
        let overlay = self.overlay.as_mut();
        overlay.map_or_else(Merged::default, |overlay| overlay.merge(entries, unix_ms()))
    }

    /// The words that have come in after that number, and the number to ask with the next time.
    pub(super) fn shared_since(&self, number: u64) -> (Vec<Entry>, u64) {
        let overlay = self.overlay.as_ref();
        overlay.map_or((Vec::new(), 0), |overlay| overlay.since(number))
    }

    /// What all nodes with the same changes have in common; 0 without peers.
    pub(super) fn shared_digest(&mut self) -> u64 {
        let Some(overlay) = &self.overlay else {
            return 0;
        };
        let number = overlay.last_number();
        match self.digest {
            Some((of, digest)) if of == number => digest,
            _ => {
                let digest = overlay.digest();
                self.digest = Some((number, digest));
                digest
            }
        }
    }

    /// All peers have the same changes: what was taken back long ago needs not be remembered.
    pub(super) fn forget_shared(&mut self) {
        if let Some(overlay) = &mut self.overlay {
            overlay.forget(unix_ms());
        }
    }

    /// The config file's model with what was changed at run time; without peers, what is in force.
    pub(super) fn laid(&self, current: &Model) -> Laid {
        match &self.overlay {
            Some(overlay) => overlay.model(&self.configured, current),
            None => Laid {
                model: current.clone(),
                refused: Vec::new(),
            },
        }
    }

    /// What is in force, with the admin states that nodes have told.
    pub(super) fn with_states(&self, current: &Model) -> Model {
        match &self.overlay {
            Some(overlay) => overlay.with_states(current),
            None => current.clone(),
        }
    }

    /// What a reload of the config file makes of the model in force: settings are the file's, on all nodes; admin
    /// states stay, those included that a peer has told of backends which the file did not have so far.
    pub(super) fn laid_after_reload(&self, configured: &Model, current: &Model) -> Laid {
        match &self.overlay {
            Some(overlay) => {
                let mut overlay = overlay.clone();
                overlay.note_reload(unix_ms());
                overlay.model(configured, current)
            }
            None => Laid {
                model: configured.clone().keeping_state_of(current),
                refused: Vec::new(),
            },
        }
    }

    /// Saves what is in force, if that is new. A failure is logged: the change holds until lbd ends.
    pub(super) fn save(&mut self, current: &Model) {
        let state = Saved::of(&self.configured, current);
        let state = match &self.overlay {
            Some(overlay) => state.with_shared(overlay),
            None => state,
        };
        let json = match state.to_json() {
            Ok(json) => json,
            Err(error) => {
                warn!("changes made with lbctl cannot be saved: {error}");
                return;
            }
        };
        if self.written.as_ref() == Some(&json) {
            return;
        }
        match self.file.write(&json) {
            Ok(()) => self.written = Some(json),
            Err(error) => warn!("changes made with lbctl do not survive lbd: {error}"),
        }
    }

    /// Removes the file: the datapath was taken off, and the next start begins with the config file.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(super) fn remove_file(&self) -> anyhow::Result<()> {
        Ok(self.file.remove()?)
    }
}

fn overlay(saved: Option<&Saved>, loaded: &Model) -> Overlay {
    match saved {
        Some(saved) => saved.shared(loaded, unix_ms()),
        None => Overlay::new(&loaded.node),
    }
}

fn read(file: &StateFile) -> Option<Saved> {
    let path = file.path().display();
    let json = match file.read() {
        Ok(json) => json?,
        Err(error) => {
            warn!("changes made with lbctl before the restart are lost: {error}");
            return None;
        }
    };
    Saved::from_json(&json)
        .inspect_err(|error| {
            warn!("changes made with lbctl before the restart are lost: {path}: {error}");
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};
    use crate::model::{AdminState, Change, Urgency};

    const CONFIG: &str = "[[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nport = 80\n\
                          [[service.backend]]\nname = \"web1\"\naddress = \"10.0.0.1\"\n";

    fn model(text: &str) -> Model {
        let overrides = Overrides {
            interfaces: vec![],
            node: "lb1".to_owned(),
        };
        parse("lbd.toml", text, &overrides).unwrap().model
    }

    fn file(name: &str) -> StateFile {
        let socket = std::env::temp_dir().join(format!("lbd-{name}-{}", std::process::id()));
        let file = StateFile::of_services(&socket);
        file.remove().unwrap();
        file
    }

    fn drained(model: &Model) -> Model {
        let drain = Change::SetBackendAdmin {
            service: "web".to_owned(),
            backend: "web1".to_owned(),
            admin: AdminState::Drain,
            urgency: Urgency::Planned,
        };
        model.apply(drain).unwrap().0
    }

    #[test]
    fn a_drain_survives_the_daemon_and_a_new_config_file() {
        let file = file("survives");
        let (mut saved, first) =
            SavedServices::resume(file.clone(), model(CONFIG), Company::Nobody);
        saved.save(&drained(&first));
        let (_, again) = SavedServices::resume(file.clone(), model(CONFIG), Company::Nobody);
        assert_eq!(again, drained(&model(CONFIG)));
        let heavier = format!("{CONFIG}weight = 7\n");
        let (_, reloaded) = SavedServices::resume(file.clone(), model(&heavier), Company::Nobody);
        assert_eq!(reloaded, drained(&model(&heavier)));
        saved.remove_file().unwrap();
        let (_, fresh) = SavedServices::resume(file, model(CONFIG), Company::Nobody);
        assert_eq!(fresh, model(CONFIG));
    }

    #[test]
    fn a_reload_brings_a_backend_that_a_peer_has_drained_already() {
        let file = file("reloaded");
        let (without, _) = CONFIG.split_once("[[service.backend]]").unwrap();
        let (mut saved, started) = SavedServices::resume(file, model(without), Company::Peers);
        let mut peer = Overlay::new("lb2");
        peer.note_change(&model(CONFIG), &drained(&model(CONFIG)), unix_ms());
        saved.merge_shared(peer.entries());
        let laid = saved.laid_after_reload(&model(CONFIG), &started);
        assert_eq!(laid.model, drained(&model(CONFIG)));
        assert_eq!(laid.refused, [""; 0]);
    }

    #[test]
    fn a_damaged_file_does_not_keep_lbd_from_starting() {
        let file = file("damaged");
        file.write(b"{\"format\": 1, \"fi").unwrap();
        let (saved, started) = SavedServices::resume(file, model(CONFIG), Company::Nobody);
        assert_eq!(started, model(CONFIG));
        saved.remove_file().unwrap();
    }
}
