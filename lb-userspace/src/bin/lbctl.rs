//! `lbctl`, the client of `lbd`.

fn main() -> std::process::ExitCode {
    lb_userspace::ctl::main()
}
