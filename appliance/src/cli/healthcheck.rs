//! `lockgate healthcheck`: is the gateway ready? For container health checks and scripts.

use super::gateway::{GatewayArgs, json_line, printable};
use super::{ANSWER_NO, FAILED, print};
use crate::control::client::{self, Answer};
use serde_json::json;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 ready, 1 running but not ready, 3 nobody answers.

EXAMPLES
  lockgate healthcheck
  lockgate healthcheck --address 127.0.0.1:9180")]
pub struct HealthcheckArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The ops listener [default: `[ops].address` of the configuration]
    #[arg(long, value_name = "IP:PORT", env = "LOCKGATE_OPS_ADDRESS", value_parser = super::given::address)]
    address: Option<SocketAddr>,
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

pub fn run(args: HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let address = match args.address {
        Some(address) => address,
        None => args.gateway.config()?.ops.address,
    };
    let answer = match ask(address, Duration::from_secs(args.timeout)) {
        Ok(answer) => answer,
        Err(error) => {
            note!("lockgate: no gateway answers on {address} ({error}); start one with `lockgate serve --config FILE`");
            return Ok(ExitCode::from(FAILED));
        }
    };
    let (ready, said) = (answer.status == 200, answer.body.as_str().unwrap_or_default().trim().to_owned());
    match args.gateway.json() {
        true => print(&json_line(&json!({ "ready": ready, "status": said })))?,
        false => {
            print(&format!("{}\n", if ready { "ready".into() } else { format!("not ready: {}", printable(&said)) }))?
        }
    };
    Ok(ExitCode::from(if ready { 0 } else { ANSWER_NO }))
}

fn ask(address: SocketAddr, timeout: Duration) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    client::exchange(stream, "/readyz", None)
}
