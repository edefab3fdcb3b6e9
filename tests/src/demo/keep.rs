//! `--keep`: the demo runs in a process of its own, which stays and holds everything when the one in the foreground ends.

use std::{
    io::{Read, Write, pipe},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{Demo, EXAMPLES, HELLO, Screen, TEAM};

/// The byte after which there is nothing more to show.
const DONE: u8 = 0;

/// Starts the process that stays, and shows what it says until it is done.
pub fn launch(screen: Screen) -> Result<()> {
    let (mut said, say) = pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--keep", "--stay"]).stdin(Stdio::null()).stdout(say.try_clone()?).stderr(say);
    // A Ctrl-C that is meant for the shell must not end it later.
    command.process_group(0);
    if screen.is_terminal() {
        command.arg("--terminal");
    }
    let mut staying = command.spawn().context("cannot start the process that stays")?;
    // It holds our end of the pipe for writing.
    drop(command);
    let mut bytes = [0; 4096];
    loop {
        let length = said.read(&mut bytes)?;
        let new = bytes.get(..length).unwrap_or_default();
        let shown = new.split(|byte| *byte == DONE).next().unwrap_or_default();
        std::io::stdout().write_all(shown)?;
        std::io::stdout().flush()?;
        if shown.len() < new.len() {
            return Ok(());
        }
        if length == 0 {
            bail!("the demo failed ({}), so nothing was left running", staying.wait()?);
        }
    }
}

/// Says how to go on, and holds everything until somebody ends this process.
pub fn stay(demo: &Demo, screen: Screen) -> Result<()> {
    screen.say(&instructions(demo)?)?;
    let mut out = std::io::stdout();
    out.write_all(&[DONE])?;
    out.flush()?;
    loop {
        std::thread::park();
    }
}

fn instructions(demo: &Demo) -> Result<String> {
    let plane = &demo.world.plane;
    let kubectl = demo.world.tools.kubectl.path.parent().context("kubectl is nowhere")?;
    Ok(format!(
        "
The control plane and the host go on in the background. In any shell:

  export KUBECONFIG={kubeconfig}
  export PATH={kubectl}:$PATH
  kubectl get plugins -A
  kubectl -n {TEAM} get hellos,configmaps
  kubectl -n {TEAM} patch hello hello-01 --type=merge -p '{{\"spec\":{{\"text\":\"good morning\"}}}}'
  kubectl -n {TEAM} get configmap hello-01 -o jsonpath='{{.data.text}}{{\"\\n\"}}'
  kubectl -n {TEAM} describe plugin {HELLO}
  kubectl -n {EXAMPLES} get confighistories,configmaps,databases,statefulsets,backups

  components   {plugins}   (replace one by rename, and it is swapped in)
  host's log   {log}
  stop it all  kill {pid}",
        kubeconfig = plane.admin_kubeconfig().display(),
        kubectl = kubectl.display(),
        plugins = demo.options.plugin_dir.display(),
        log = demo.host.log_path().display(),
        pid = std::process::id(),
    ))
}
