//! The namespaces in which a node lives, and the wire from the machine to it. They end with their first process.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    control_plane::{Network, tail},
    paths,
    supervisor::{Process, Server, Supervisor},
};

/// In the directory: there when everything is mounted and connected.
const READY: &str = "room-ready";
const LOG: &str = "room.log";

/// Settings of the kernel that the kubelet insists on, and what it finds: files, so that it does not change them for the machine.
const KERNEL: [(&str, &str); 3] =
    [("/proc/sys/vm/overcommit_memory", "1\n"), ("/proc/sys/kernel/panic", "10\n"), ("/proc/sys/kernel/panic_on_oops", "1\n")];

/// From here on, servers start inside.
pub fn open(supervisor: &Arc<Supervisor>) -> Result<Network> {
    let dir = supervisor.dir();
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not text");
    let networks = Network::all().filter(|network| is_free(*network));
    let flags = ["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--propagation=private", "--"];
    for network in networks {
        let mut args = flags.map(str::to_owned).to_vec();
        args.extend([text(&paths::binary("reef-testbed")?)?, "room".into(), text(dir)?]);
        args.extend([network.node().to_string(), network.machine().to_string()]);
        let program = "unshare".into();
        let outer = supervisor.spawn(Server { program, args, env: Vec::new(), log: dir.join(LOG) })?;
        let first = first_process(&outer)?;
        if connect(network, first).is_err() {
            // Somebody else was quicker.
            outer.kill()?;
            continue;
        }
        supervisor.enter(first)?;
        wait_until_ready(&outer, dir)?;
        return Ok(network);
    }
    bail!("no network is free for a node, from 10.77.0.0/16 to 10.96.0.0/16: look at `ip route`")
}

fn is_free(network: Network) -> bool {
    let routes = ip(&["-4", "route", "show", "root", &network.all_of_it()]);
    routes.is_ok_and(|routes| routes.trim().is_empty()) && !Path::new("/sys/class/net").join(network.interface()).exists()
}

/// The only child of `unshare`.
fn first_process(outer: &Process) -> Result<i32> {
    let end = Instant::now() + super::HANG_BOUND;
    while Instant::now() < end && outer.exit().is_none() {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children", pid = outer.pid()));
        let children = children.context("this kernel does not tell a process's children")?;
        if let Ok(child) = children.trim().parse() {
            return Ok(child);
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("cannot make namespaces: `unshare` ends, or makes no process")
}

fn connect(network: Network, first: i32) -> Result<()> {
    let (interface, first) = (network.interface(), first.to_string());
    ip(&["link", "add", &interface, "type", "veth", "peer", "name", "eth0", "netns", &first])?;
    ip(&["address", "add", &format!("{}/24", network.machine()), "dev", &interface])?;
    ip(&["link", "set", &interface, "up"])?;
    ip(&["route", "add", &network.all_of_it(), "via", &network.node().to_string()]).map(drop)
}

fn wait_until_ready(outer: &Process, dir: &Path) -> Result<()> {
    let end = Instant::now() + super::HANG_BOUND;
    while !dir.join(READY).exists() {
        if outer.exit().is_some() || Instant::now() > end {
            bail!("the namespaces of the node are not furnished:\n{}", tail(&dir.join(LOG), 30));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The body of `reef-testbed room DIR NODE MACHINE`, the first process inside: furnishes the namespaces, and then waits for whoever
/// loses its parent.
pub fn hold(dir: &Path, node: Ipv4Addr, machine: Ipv4Addr) -> Result<()> {
    furnish(dir)?;
    run("ip", &["link", "set", "lo", "up"])?;
    let end = Instant::now() + super::HANG_BOUND;
    // /sys still shows the machine's interfaces.
    while run("ip", &["link", "show", "eth0"]).is_err() {
        ensure!(Instant::now() < end, "nobody connects the node");
        thread::sleep(Duration::from_millis(10));
    }
    run("ip", &["address", "add", &format!("{node}/24"), "dev", "eth0"])?;
    run("ip", &["link", "set", "eth0", "up"])?;
    run("ip", &["route", "add", "default", "via", &machine.to_string()])?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    fs::write(dir.join(READY), "")?;
    loop {
        if rustix::process::wait(rustix::process::WaitOptions::empty()).is_err() {
            thread::sleep(Duration::from_millis(500));
        }
    }
}

fn furnish(dir: &Path) -> Result<()> {
    // Before /run is another one: on many machines the file is a link into it.
    let resolver = fs::canonicalize("/etc/resolv.conf").context("cannot find /etc/resolv.conf")?;
    run("mount", &["--make-rprivate", "/"])?;
    run("mount", &["-t", "proc", "proc", "/proc"])?;
    for place in ["/run", "/var/log"] {
        run("mount", &["-t", "tmpfs", "tmpfs", place])?;
    }
    lay_over(dir, "/var/lib")?;
    fs::create_dir_all(super::files::KUBELET_PLACE)?;
    // Names that nobody knows are refused at once.
    replace(dir, "resolv.conf", "nameserver 127.0.0.1\n", &resolver)?;
    for (setting, content) in KERNEL {
        let setting = Path::new(setting);
        let name = setting.file_name().and_then(|name| name.to_str()).context("a setting without a name")?;
        replace(dir, name, content, setting)?;
    }
    // What pods mount is seen by whoever is inside.
    run("mount", &["--make-rshared", "/"])
}

/// What is written there comes into our directory.
fn lay_over(dir: &Path, place: &str) -> Result<()> {
    let [upper, work] = ["upper", "work"].map(|name| dir.join("laid-over").join(name));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    let options = format!("lowerdir={place},upperdir={},workdir={}", upper.display(), work.display());
    run("mount", &["-t", "overlay", "overlay", "-o", &options, place])
}

/// A file of ours instead of one of the machine's.
fn replace(dir: &Path, name: &str, content: &str, place: &Path) -> Result<()> {
    let file = dir.join(name);
    fs::write(&file, content)?;
    if !place.exists() {
        fs::create_dir_all(place.parent().unwrap_or(place))?;
        fs::write(place, "")?;
    }
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not text");
    run("mount", &["--bind", &text(&file)?, &text(place)?])
}

fn ip(args: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(args).output().context("cannot run `ip`")?;
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| format!("cannot run `{program}`"))?;
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}
