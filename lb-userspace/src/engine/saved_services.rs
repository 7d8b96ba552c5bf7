//! What was changed at run time and must survive the daemon, in a file of its own.

use tracing::{info, warn};

use super::state_file::StateFile;
use crate::model::Model;
use crate::model::saved::Saved;

/// The file of saved services, and what it is compared with.
#[derive(Debug)]
pub(super) struct SavedServices {
    file: StateFile,
    /// As the config file said when it was last read.
    configured: Model,
    /// What was written last.
    written: Option<Vec<u8>>,
}

impl SavedServices {
    /// Reads what an earlier daemon has saved, and returns the model to start with, where the config
    /// file says `loaded`. What cannot be read is not resumed: forwarding by the config file is better
    /// than none.
    pub(super) fn resume(file: StateFile, loaded: Model) -> (Self, Model) {
        let resumed = read(&file).map(|saved| saved.resume(loaded.clone()));
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
        let saved = Self {
            file,
            configured: loaded,
            written: None,
        };
        (saved, model)
    }

    /// The config file was read again.
    pub(super) fn reloaded(&mut self, configured: Model) {
        self.configured = configured;
    }

    /// Saves what is in force, if that is new. A failure is logged: the change holds until lbd ends.
    pub(super) fn save(&mut self, current: &Model) {
        let json = match Saved::of(&self.configured, current).to_json() {
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
        let (mut saved, first) = SavedServices::resume(file.clone(), model(CONFIG));
        saved.save(&drained(&first));
        let (_, again) = SavedServices::resume(file.clone(), model(CONFIG));
        assert_eq!(again, drained(&model(CONFIG)));
        let heavier = format!("{CONFIG}weight = 7\n");
        let (_, reloaded) = SavedServices::resume(file.clone(), model(&heavier));
        assert_eq!(reloaded, drained(&model(&heavier)));
        saved.remove_file().unwrap();
        let (_, fresh) = SavedServices::resume(file, model(CONFIG));
        assert_eq!(fresh, model(CONFIG));
    }

    #[test]
    fn a_damaged_file_does_not_keep_lbd_from_starting() {
        let file = file("damaged");
        file.write(b"{\"format\": 1, \"fi").unwrap();
        let (saved, started) = SavedServices::resume(file, model(CONFIG));
        assert_eq!(started, model(CONFIG));
        saved.remove_file().unwrap();
    }
}
