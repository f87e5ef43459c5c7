//! The process that computes. It keeps no state of a training that its client would miss.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context as _;
use burn::server::{RemoteServer, WebSocketTransport};
use burn::tensor::Device;

use crate::arguments::ServeArguments;

/// Serves until Ctrl+C or SIGTERM.
pub fn serve(arguments: &ServeArguments) -> anyhow::Result<()> {
    // Burn would listen on every interface, and anyone who connects could compute.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port))
        .with_context(|| format!("cannot listen on port {}", arguments.port))?;
    let address = listener.local_addr();
    announce(address.context("cannot tell which port is listened on")?)
        .context("cannot write to the standard output")?;

    let devices = (0..arguments.devices).map(|_| Device::flex());
    RemoteServer::new(devices)
        .serve(WebSocketTransport::from_listener(listener))
        .context("the server ended with an error")
}

/// The first line of the output, for people and scripts: clients can connect from here on.
fn announce(address: SocketAddr) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "listening on ws://{address}")?;
    output.flush()
}
