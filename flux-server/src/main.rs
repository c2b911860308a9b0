//! A small HTTP server and worker that show how Flux is run.

fn main() -> std::process::ExitCode {
    eprintln!(
        "flux-server {} does not serve yet. Try: cargo run --release --example flash_sale",
        env!("CARGO_PKG_VERSION")
    );
    std::process::ExitCode::FAILURE
}
