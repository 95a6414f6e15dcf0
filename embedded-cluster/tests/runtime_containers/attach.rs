//! Clients attached to a container's own streams, and containers that look into another one.

use embedded_cluster::runtime::{ContainerId, ContainerRuntime as _, ExecProcess, TerminalSize};
use libtest_mimic::Trial;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::lab::{Pod, test, text, until};

pub fn tests() -> Vec<Trial> {
    vec![
        test("attach_to_a_terminal_types_resizes_and_reads", terminal),
        test("attach_with_stdin_once_ends_the_containers_input", stdin_once),
        test("attach_leaves_the_container_running_and_others_may_follow", again),
        test("attach_after_a_short_life_still_shows_it", after_the_end),
        test("a_container_shares_its_targets_pid_namespace_and_ends_alone", target),
        test("sysctls_are_the_pods_own", sysctls),
    ]
}

async fn attach(pod: &Pod, id: &ContainerId) -> ExecProcess {
    pod.lab.runtime.attach(id, true).await.unwrap()
}

async fn read(process: &mut ExecProcess, expected: &str) {
    let mut text = vec![0; expected.len()];
    process.stdout.as_mut().unwrap().read_exact(&mut text).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&text), expected);
}

async fn rest(process: &mut ExecProcess) -> String {
    let mut text = String::new();
    process.stdout.as_mut().unwrap().read_to_string(&mut text).await.unwrap();
    text
}

async fn write(process: &mut ExecProcess, text: &str) {
    process.stdin.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
}

async fn terminal(pod: Pod) {
    let script = "printf 'name? '; read name; until [ \"$(stty size)\" = '43 132' ]; do sleep 0.01; done; echo hello $name; exit 6";
    let mut spec = pod.spec(&["sh", "-c", script]);
    (spec.tty, spec.stdin) = (true, true);
    let id = pod.start(spec).await.unwrap();
    let mut client = attach(&pod, &id).await;
    assert!(client.stderr.is_none());
    read(&mut client, "name? ").await;
    write(&mut client, "ann\n").await;
    client.resize.as_ref().unwrap().send(TerminalSize { columns: 132, rows: 43 }).await.unwrap();
    assert_eq!(rest(&mut client).await, "ann\r\nhello ann\r\n");
    assert_eq!(client.exit.await, Ok(0));
    assert_eq!(pod.lab.runtime.wait_container(&id).await.unwrap().exit_code, 6);
}

async fn stdin_once(pod: Pod) {
    let mut spec = pod.spec(&["sh", "-c", "wc -c; exit 3"]);
    (spec.stdin, spec.stdin_once) = (true, true);
    let log = spec.log_path.clone();
    let id = pod.start(spec).await.unwrap();
    let mut client = attach(&pod, &id).await;
    let mut stdin = client.stdin.take().unwrap();
    // More than a pipe holds.
    stdin.write_all(&vec![b'x'; 300_000]).await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await.trim(), "300000");
    assert_eq!(pod.lab.runtime.wait_container(&id).await.unwrap().exit_code, 3);
    assert_eq!(text(&std::fs::read_to_string(log).unwrap(), "stdout").trim(), "300000", "the log has it, too");
}

async fn again(pod: Pod) {
    let mut spec = pod.spec(&["cat"]);
    spec.stdin = true;
    let id = pod.start(spec).await.unwrap();
    let mut first = attach(&pod, &id).await;
    write(&mut first, "one").await;
    read(&mut first, "one").await;
    drop(first);
    let mut second = attach(&pod, &id).await;
    write(&mut second, "two").await;
    read(&mut second, "two").await;
    pod.lab.runtime.signal_container(&id, libc::SIGKILL).await.unwrap();
    assert_eq!(rest(&mut second).await, "", "the container's end is the end of its streams");
}

async fn after_the_end(pod: Pod) {
    let mut spec = pod.spec(&["echo", "quick"]);
    spec.stdin = true;
    let id = pod.start(spec).await.unwrap();
    pod.lab.runtime.wait_container(&id).await.unwrap();
    assert_eq!(rest(&mut attach(&pod, &id).await).await, "quick\n");
}

async fn target(pod: Pod) {
    let spec = pod.spec(&["sh", "-c", "readlink /proc/self/ns/pid; exec sleep infinity"]);
    let log = spec.log_path.clone();
    let app = pod.start(spec).await.unwrap();
    until("the target has said its namespace", || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("pid:["))).await;
    let namespace = text(&std::fs::read_to_string(log).unwrap(), "stdout");

    // What it leaves behind holds its output open: were it not ended, this would hang.
    let mut spec = pod.spec(&["sh", "-c", "setsid sleep 1000 & readlink /proc/self/ns/pid; exit 4"]);
    spec.pid_namespace_of = Some(app.clone());
    let (status, log) = pod.run(spec).await;
    assert_eq!((status.exit_code, text(&log, "stdout")), (4, namespace.clone()));
    let alone = pod.shell("readlink /proc/self/ns/pid").await;
    assert_ne!(alone, namespace, "other containers of the pod have namespaces of their own");

    let mut spec = pod.spec(&["sh", "-c", "kill -KILL 1 || echo refused"]);
    spec.pid_namespace_of = Some(app.clone());
    // pid_namespaces(7): the first process of a namespace is safe from those inside it.
    let _ = pod.run(spec).await;
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), pod.lab.runtime.wait_container(&app)).await.is_err());
    pod.lab.runtime.signal_container(&app, libc::SIGKILL).await.unwrap();
    pod.lab.runtime.wait_container(&app).await.unwrap();
}

async fn sysctls(pod: Pod) {
    const RANGE: &str = "cat /proc/sys/net/ipv4/ip_local_port_range";
    let other =
        match pod.lab.pod_with(|spec| spec.sysctls = vec![("net.ipv4.ip_local_port_range".to_owned(), "40000 40003".to_owned())]).await {
            Ok(pod) => pod,
            Err(error) if error.to_string().contains("Read-only file system") => {
                eprintln!("skipped: this machine's /proc/sys cannot be written to");
                return;
            }
            Err(error) => panic!("{error}"),
        };
    assert_eq!(other.shell(RANGE).await, "40000\t40003\n");
    assert_ne!(pod.shell(RANGE).await, "40000\t40003\n");
    let unknown = pod.lab.pod_with(|spec| spec.sysctls = vec![("net.ipv4.no_such".to_owned(), "1".to_owned())]).await;
    assert!(unknown.err().unwrap().to_string().starts_with("set the kernel parameter net.ipv4.no_such=1: "));
}
