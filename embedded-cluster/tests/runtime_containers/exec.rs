//! Further processes in a running container.

use embedded_cluster::runtime::{ContainerId, ContainerRuntime as _, ExecProcess, ExecSpec, RuntimeError, TerminalSize};
use libtest_mimic::Trial;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::lab::{Pod, test, text, until};

pub fn tests() -> Vec<Trial> {
    vec![
        test("exec_sees_the_container_and_reports_its_exit_code", inside),
        test("exec_passes_stdin_through_to_its_end", stdin),
        test("exec_with_a_terminal_echoes_and_resizes", terminal),
        test("exec_of_what_is_not_there_fails", unknown_command),
        test("dropping_an_exec_kills_it", dropping),
        test("exec_ends_with_its_container", container_ends),
    ]
}

async fn exec(pod: &Pod, id: &ContainerId, command: &[&str], tty: bool, stdin: bool) -> Result<ExecProcess, RuntimeError> {
    let command = command.iter().map(|part| (*part).to_owned()).collect();
    pod.lab.runtime.exec(id, ExecSpec { command, tty, stdin }).await
}

async fn output(stream: &mut Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>) -> String {
    let mut text = String::new();
    stream.as_mut().unwrap().read_to_string(&mut text).await.unwrap();
    text
}

async fn inside(pod: Pod) {
    // Namespaces are compared, not what /proc/1 is: where the kernel refuses a fresh /proc, the outer one is seen.
    let mut spec = pod.spec(&["sh", "-c", "readlink /proc/self/ns/pid; exec sleep infinity"]);
    let log = spec.log_path.clone();
    spec.env = vec![("COLOUR".to_owned(), "green".to_owned())];
    spec.working_dir = Some("/tmp".into());
    let id = pod.start(spec).await.unwrap();
    let script = "readlink /proc/self/ns/pid; hostname; echo $COLOUR; pwd; echo mistake >&2; exit 9";
    let mut process = exec(&pod, &id, &["sh", "-c", script], false, false).await.unwrap();
    let (stdout, stderr) = tokio::join!(output(&mut process.stdout), output(&mut process.stderr));
    until("the container has said its namespace", || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("pid:["))).await;
    let namespace = text(&std::fs::read_to_string(log).unwrap(), "stdout");
    assert_eq!(stdout, format!("{namespace}{}-host\ngreen\n/tmp\n", pod.uid));
    assert_eq!(stderr, "mistake\n");
    assert!(process.stdin.is_none() && process.resize.is_none());
    assert_eq!(process.exit.await.unwrap(), 9);

    let killed = exec(&pod, &id, &["sh", "-c", "kill -KILL $$"], false, false).await.unwrap();
    assert_eq!(killed.exit.await.unwrap(), 137);
}

async fn stdin(pod: Pod) {
    let id = pod.sleeper().await;
    let mut process = exec(&pod, &id, &["wc", "-c"], false, true).await.unwrap();
    let mut stdin = process.stdin.take().unwrap();
    // More than a pipe holds.
    stdin.write_all(&vec![b'x'; 300_000]).await.unwrap();
    drop(stdin);
    assert_eq!(output(&mut process.stdout).await.trim(), "300000");
    assert_eq!(process.exit.await.unwrap(), 0);

    let mut without = exec(&pod, &id, &["cat"], false, false).await.unwrap();
    assert_eq!(output(&mut without.stdout).await, "", "stdin is empty, not the runtime's own");
}

async fn terminal(pod: Pod) {
    let id = pod.sleeper().await;
    let script = "tty; until [ \"$(stty size)\" = '43 132' ]; do sleep 0.01; done; echo resized; read line; echo got $line";
    let mut process = exec(&pod, &id, &["sh", "-c", script], true, true).await.unwrap();
    assert!(process.stderr.is_none());
    process.resize.as_ref().unwrap().send(TerminalSize { columns: 132, rows: 43 }).await.unwrap();
    let expected = "/dev/pts/0\r\nresized\r\n";
    let mut begin = vec![0; expected.len()];
    process.stdout.as_mut().unwrap().read_exact(&mut begin).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&begin), expected);
    process.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
    assert_eq!(output(&mut process.stdout).await, "typed\r\ngot typed\r\n", "the terminal echoes");
    assert_eq!(process.exit.await.unwrap(), 0);
}

async fn unknown_command(pod: Pod) {
    let id = pod.sleeper().await;
    let error = exec(&pod, &id, &["no-such-tool"], false, false).await.err().unwrap();
    assert!(matches!(error, RuntimeError::CannotStart { .. }), "{error:?}");
    assert_eq!(error.to_string(), "exec: \"no-such-tool\": executable file not found in $PATH");
    let nobody = ContainerId("none".to_owned());
    assert!(matches!(exec(&pod, &nobody, &["true"], false, false).await.err().unwrap(), RuntimeError::NotFound(_)));
}

async fn dropping(pod: Pod) {
    let id = pod.sleeper().await;
    let process = exec(&pod, &id, &["sleep", "1234"], false, false).await.unwrap();
    let ExecProcess { exit, guard, stdin: _stdin, stdout: _stdout, stderr: _stderr, resize: _ } = process;
    drop(guard);
    assert_eq!(exit.await.unwrap(), 137);
}

async fn container_ends(pod: Pod) {
    let id = pod.sleeper().await;
    let mut process = exec(&pod, &id, &["sleep", "1234"], false, false).await.unwrap();
    pod.lab.runtime.signal_container(&id, libc::SIGKILL).await.unwrap();
    assert_eq!(output(&mut process.stdout).await, "");
    assert_eq!(process.exit.await.unwrap(), 137);
    pod.lab.runtime.wait_container(&id).await.unwrap();
    let error = exec(&pod, &id, &["true"], false, false).await.err().unwrap();
    assert!(matches!(error, RuntimeError::NotFound(_)), "{error:?}");
}
