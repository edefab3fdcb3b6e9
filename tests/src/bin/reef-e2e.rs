//! `make e2e`: Reef's image in a registry, the chart, a plugin and its pods, on a node of our own or on a cluster that is there.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use reef_tests::{
    demo::Screen,
    e2e::{self, Target},
    paths,
};

/// Installs Reef in a cluster as a user does, has it serve a page, and takes everything away again.
#[derive(Parser)]
struct Args {
    /// The OCI layout of Reef's image, from deploy/image/build [default: image/reef in cargo's target directory]
    #[arg(long)]
    image: Option<PathBuf>,
    /// An admin's kubeconfig of a cluster that is there; without it, a node is started for this, which needs root
    #[arg(long, requires = "registry")]
    kubeconfig: Option<PathBuf>,
    /// A registry that this machine and the cluster reach under one name, as in registry.example:5000/reef-e2e
    #[arg(long, requires = "kubeconfig")]
    registry: Option<String>,
    /// That registry speaks http
    #[arg(long)]
    plain_http: bool,
    /// Serves /usr/share/nginx/html on port 8080 [default: that of the plugin website]
    #[arg(long)]
    web_image: Option<String>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reef-e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let screen = Screen::new(false);
    let image = args.image.map_or_else(|| paths::target().map(|target| target.join("image/reef")), Ok)?;
    let image = image.canonicalize().with_context(|| format!("there is no image in {}: run `make image`", image.display()))?;
    let Some(kubeconfig) = args.kubeconfig else {
        return runtime.block_on(e2e::on_own_node(image, screen, &|line| eprintln!("{line}")));
    };
    let ended = runtime.block_on(e2e::run(
        Target {
            kubeconfig,
            registry: args.registry.context("a cluster that is there needs --registry")?,
            plain_http: args.plain_http,
            web_image: args.web_image,
            services_are_reached: false,
            image,
        },
        screen,
    ));
    ended.context("it did not come to its end, and leaves what it has made: look at the namespaces reef-system and reef-e2e")
}
