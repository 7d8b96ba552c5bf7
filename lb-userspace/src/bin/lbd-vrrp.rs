//! `lbd-vrrp`, the process that moves VIPs between nodes.

fn main() -> std::process::ExitCode {
    lb_userspace::vrrp::process::main()
}
