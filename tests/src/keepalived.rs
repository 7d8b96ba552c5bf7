//! A real keepalived.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use crate::netns::Netns;
use crate::process::Process;
use crate::scratch::ScratchDir;

/// What a keepalived is to do: a virtual router for each family of its VIPs, which move together.
#[derive(Clone, Debug)]
pub struct KeepalivedPlan {
    /// Where it speaks VRRP, and has the VIPs.
    pub interface: String,
    /// The virtual routers' id.
    pub vrid: u8,
    /// The VIPs.
    pub vips: Vec<IpAddr>,
    /// 1 to 254.
    pub priority: u8,
    /// Between two advertisements, in hundredths of a second as VRRP counts.
    pub interval: Duration,
    /// A file with the id of a process without which it gives the VIPs up; looked at once a second.
    pub tracked_pid_file: Option<String>,
}

/// A running keepalived. Dropping it ends it.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
    _scratch: ScratchDir,
}

impl Keepalived {
    /// Starts it in `netns`, in the foreground.
    pub fn start(name: &str, netns: &Netns, plan: &KeepalivedPlan) -> Result<Self> {
        Self::start_with(name, netns, &plan.config())
    }

    /// As [`Keepalived::start`], with any configuration.
    pub fn start_with(name: &str, netns: &Netns, config: &str) -> Result<Self> {
        let scratch = ScratchDir::new(&format!("keepalived-{name}"))?;
        let config = scratch.write("keepalived.conf", config)?;
        let directory = scratch.path();
        let mut command = netns.command("keepalived");
        command.args(["-n", "-l", "-D", "-P", "-f"]).arg(config);
        command.arg("-p").arg(directory.join("keepalived.pid"));
        command.arg("-r").arg(directory.join("vrrp.pid"));
        let name = format!("keepalived {name}");
        let process = Process::spawn(&name, command, &directory.join("log"))?;
        Ok(Self {
            process,
            _scratch: scratch,
        })
    }

    /// The process that was started; its VRRP process is a child of it, in its process group.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The last lines that it has written.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

impl KeepalivedPlan {
    /// Its configuration file.
    pub fn config(&self) -> String {
        // Real-time priority, as its manual advises for intervals of less than a second; and more than 10 ms of a
        // processor at a time, or the kernel kills it on a busy machine.
        let mut text =
            "global_defs {\n  router_id lab\n  vrrp_version 3\n  vrrp_rt_priority 10\n  \
                        vrrp_rlimit_rttime 5000000\n  \
                        script_user root\n  enable_script_security\n  vrrp_garp_master_delay 1\n}\n"
                .to_owned();
        if let Some(file) = &self.tracked_pid_file {
            let _infallible = writeln!(
                text,
                "vrrp_script alive {{\n  script \"/bin/sh -c 'kill -0 $(cat {file})'\"\n  interval 1\n  \
                 fall 1\n  rise 1\n}}"
            );
        }
        let families = [("v4", true), ("v6", false)].map(|(name, is_v4)| {
            let of_family = self.vips.iter().filter(|vip| vip.is_ipv4() == is_v4);
            (name, of_family.collect::<Vec<_>>())
        });
        let families = families.iter().filter(|(_, vips)| !vips.is_empty());
        let mut group = String::new();
        for (name, vips) in families {
            group += &format!("    {name}\n");
            text += &self.instance(name, vips);
        }
        text + &format!(
            "vrrp_sync_group all {{\n  group {{\n{group}  }}\n{}}}\n",
            self.track()
        )
    }

    fn instance(&self, name: &str, vips: &[&IpAddr]) -> String {
        let (interface, vrid, priority) = (&self.interface, self.vrid, self.priority);
        let interval_s = self.interval.as_secs_f64();
        let addresses: String = vips
            .iter()
            .map(|vip| {
                let length = if vip.is_ipv4() { 32 } else { 128 };
                format!("    {vip}/{length} dev {interface}\n")
            })
            .collect();
        format!(
            "vrrp_instance {name} {{\n  state BACKUP\n  interface {interface}\n  virtual_router_id {vrid}\n  \
             priority {priority}\n  advert_int {interval_s}\n  virtual_ipaddress {{\n{addresses}  }}\n}}\n"
        )
    }

    fn track(&self) -> &'static str {
        match self.tracked_pid_file {
            Some(_) => "  track_script {\n    alive\n  }\n",
            None => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_an_instance_of_its_own() {
        let plan = KeepalivedPlan {
            interface: "eth0".to_owned(),
            vrid: 51,
            vips: vec![
                "203.0.113.10".parse().unwrap(),
                "2001:db8::10".parse().unwrap(),
            ],
            priority: 200,
            interval: Duration::from_millis(30),
            tracked_pid_file: None,
        };
        let text = plan.config();
        assert_eq!(text.matches("vrrp_instance").count(), 2);
        assert!(text.contains("advert_int 0.03\n"), "{text}");
        assert!(text.contains("    2001:db8::10/128 dev eth0\n"), "{text}");
        assert!(!text.contains("track_script"), "{text}");
    }
}
