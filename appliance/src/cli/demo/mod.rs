//! `lockgate demo`: a private PostgreSQL, an issuer, people, rules, masks and the gateway, on one machine, from nothing.

mod household;
mod people;
mod scene;
mod tour;

use anyhow::{Context as _, Result, bail};
use household::{Household, Workplace};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Everything on one machine with nothing set up; prints lines to paste; clean on Ctrl-C.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  lockgate demo                 try it by hand: lines to paste are printed\n  \
                  lockgate demo --tour          watch it play itself, then end\n  lockgate demo --keep --dir d  keep the data and the trail")]
pub struct DemoArgs {
    /// Where clients connect (loopback; 0: any free port)
    #[arg(long, default_value_t = 6432, value_name = "PORT")]
    port: u16,
    /// Where the admin pages will listen (loopback; 0: any free port)
    #[arg(long, default_value_t = 8444, value_name = "PORT")]
    web_port: u16,
    /// Keep everything in this folder [default: a fresh temporary folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the folder in place at the end
    #[arg(long)]
    keep: bool,
    /// Play the tour unattended and end: what each person sees, and who did what
    #[arg(long)]
    tour: bool,
}

pub fn run(args: DemoArgs) -> Result<ExitCode> {
    let stop = stop_flag()?;
    let workplace = Workplace::open(args.dir, args.keep)?;
    let household = Household::start(workplace, args.port, args.web_port, &stop)?;
    if args.tour {
        return tour::play(&household, &stop);
    }
    super::print(&scene::invitation(&household))?;
    while !stop.load(Ordering::Relaxed) {
        household.check()?;
        std::thread::park_timeout(Duration::from_millis(200));
    }
    note!("\nstopping: gateway, database, folder");
    Ok(ExitCode::SUCCESS)
}

/// Set by Ctrl-C or TERM.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = mpsc::channel();
    let setter = flag.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else {
            let _ = ready.send(false);
            return;
        };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                let _ = ready.send(false);
                return;
            };
            let _ = ready.send(true);
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            setter.store(true, Ordering::Relaxed);
        });
    })?;
    if !is_ready.recv().context("the signal thread ended")? {
        bail!("signals cannot be watched on this system");
    }
    Ok(flag)
}
