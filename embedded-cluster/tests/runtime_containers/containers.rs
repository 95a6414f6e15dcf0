//! Start, life and end of containers.

use std::path::PathBuf;
use std::time::Duration;

use embedded_cluster::runtime::{ContainerRuntime as _, Mount, RuntimeError};
use libtest_mimic::Trial;
use tokio::io::AsyncReadExt as _;

use crate::lab::{Pod, test, text, until};

pub fn tests() -> Vec<Trial> {
    vec![
        test("exit_codes_are_exact", exit_codes_are_exact),
        test("the_command_is_pid_1_and_ignores_what_it_does_not_handle", the_command_is_pid_1),
        test("signals_reach_handlers_and_sigkill_always_ends", signals),
        test("all_processes_end_with_the_first", all_processes_end_with_the_first),
        test("commands_that_cannot_start_are_named", commands_that_cannot_start_are_named),
        test("images_give_command_and_files", images_give_command_and_files),
        test("volumes_are_shared_and_read_only_ones_refuse", volumes),
        test("the_pods_surroundings_are_in_etc", surroundings),
        test("the_host_is_out_of_sight", the_host_is_out_of_sight),
        test("net_admin_is_given_only_when_asked_for", net_admin),
        test("containers_of_a_pod_share_its_network", containers_share_the_network),
        test("too_much_memory_is_oom_killed", too_much_memory),
        test("usage_counts_memory_and_time", usage),
        test("removing_a_pod_ends_its_containers", removing_a_pod),
        test("nothing_is_left_unreaped", nothing_is_left_unreaped),
    ]
}

async fn exit_codes_are_exact(pod: Pod) {
    for code in [0, 7, 255] {
        let (status, _) = pod.run(pod.spec(&["sh", "-c", &format!("exit {code}")])).await;
        assert_eq!((status.exit_code, status.signal, status.oom_killed), (code, None, false));
        assert!(status.started_at <= status.finished_at);
    }
}

async fn the_command_is_pid_1(pod: Pod) {
    // A process that is PID 1 of its namespace only gets the signals it handles: kernel/signal.c, SIGNAL_UNKILLABLE.
    let (status, log) = pod.run(pod.spec(&["sh", "-c", "echo $$; kill -TERM $$; kill -KILL $$; echo alive; exit 3"])).await;
    assert_eq!(text(&log, "stdout"), "1\nalive\n");
    assert_eq!(status.exit_code, 3);
}

async fn signals(pod: Pod) {
    let runtime = &pod.lab.runtime;
    let spec = pod.spec(&["sh", "-c", "trap 'echo got it; exit 5' TERM; echo up; while :; do sleep 0.02; done"]);
    let log = spec.log_path.clone();
    let handles = pod.start(spec).await.unwrap();
    until("the handler is set", || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("up"))).await;
    runtime.signal_container(&handles, libc::SIGTERM).await.unwrap();
    let status = runtime.wait_container(&handles).await.unwrap();
    assert_eq!((status.exit_code, status.signal), (5, None));
    assert!(std::fs::read_to_string(&log).unwrap().contains("stdout F got it"));
    // After the end it is no error.
    runtime.signal_container(&handles, libc::SIGTERM).await.unwrap();

    let deaf = pod.sleeper().await;
    runtime.signal_container(&deaf, libc::SIGTERM).await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(100), runtime.wait_container(&deaf)).await.is_err(),
        "PID 1 has no default handlers"
    );
    runtime.signal_container(&deaf, libc::SIGKILL).await.unwrap();
    let status = runtime.wait_container(&deaf).await.unwrap();
    assert_eq!((status.exit_code, status.signal), (137, Some(libc::SIGKILL)));
}

async fn all_processes_end_with_the_first(pod: Pod) {
    // The child holds stdout open: if it lived on, the log would never end and this would hang.
    let (status, _) = pod.run(pod.spec(&["sh", "-c", "setsid sleep 1000 & sleep 0.05; exit 0"])).await;
    assert_eq!(status.exit_code, 0);
}

async fn commands_that_cannot_start_are_named(pod: Pod) {
    for (command, expected) in [
        ("no-such-tool", "exec: \"no-such-tool\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let error = pod.start(pod.spec(&[command])).await.unwrap_err();
        assert!(matches!(error, RuntimeError::CannotStart { .. }), "{error:?}");
        assert_eq!(error.to_string(), expected);
    }
    let mut spec = pod.spec(&["true"]);
    spec.image = "registry.test/unknown:1".to_owned();
    assert!(matches!(pod.start(spec).await.unwrap_err(), RuntimeError::ImageUnknown { .. }));
    let mut spec = pod.spec(&["true"]);
    spec.added_capabilities = vec!["FLY".to_owned()];
    assert!(pod.start(spec).await.unwrap_err().to_string().contains("\"FLY\" is no Linux capability"));
    let mut spec = pod.spec(&["true"]);
    spec.mounts = vec![Mount { source: "/dev/null".into(), target: "/usr/no-such-folder/file".into(), read_only: true }];
    assert_eq!(pod.start(spec).await.unwrap_err().to_string(), "make the folder /usr/no-such-folder: Read-only file system (os error 30)");
}

async fn images_give_command_and_files(pod: Pod) {
    let with = |command: &[&str], args: &[&str]| {
        let mut spec = pod.spec(command);
        spec.image = "with-data:any".to_owned();
        spec.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        spec
    };
    for (spec, expected) in [
        (with(&[], &[]), "entry default\n"),
        (with(&[], &["given"]), "entry given\n"),
        (with(&["echo"], &[]), "\n"),
        (with(&["cat", "/opt/data/fact"], &[]), "from the image"),
    ] {
        let (_, log) = pod.run(spec).await;
        assert_eq!(text(&log, "stdout"), expected);
    }
}

async fn volumes(pod: Pod) {
    let folder = pod.lab.folder.join(format!("volume-{}", pod.uid));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("file"), "one file").unwrap();
    let mount = |source: PathBuf, target: &str, read_only| Mount { source, target: target.into(), read_only };
    let mut spec = pod.spec(&["sh", "-c", "echo hello > /data/new; echo no > /fixed/new; cat /etc/app/single; pwd"]);
    spec.mounts = vec![
        mount(folder.clone(), "/data", false),
        mount(folder.clone(), "/fixed", true),
        mount(folder.join("file"), "/etc/app/single", true),
    ];
    spec.working_dir = Some("/data/made/here".into());
    let (_, log) = pod.run(spec).await;
    assert_eq!(std::fs::read_to_string(folder.join("new")).unwrap(), "hello\n");
    assert!(text(&log, "stderr").contains("Read-only file system"), "{log}");
    assert_eq!(text(&log, "stdout"), "one file/data/made/here\n");
}

async fn surroundings(pod: Pod) {
    let seen = pod.shell("hostname; cat /etc/hostname /etc/resolv.conf /etc/hosts; echo $HOSTNAME $HOME").await;
    let name = format!("{}-host", pod.uid);
    assert!(seen.starts_with(&format!("{name}\n{name}\nnameserver 10.96.0.10\n")), "{seen}");
    assert!(seen.contains("127.0.0.1\tlocalhost\n"), "{seen}");
    assert!(seen.contains(&format!("\t{name}\n")) && seen.contains("10.1.2.3\talias.test\n"), "{seen}");
    assert!(seen.ends_with(&format!("{name} /root\n")), "{seen}");
}

async fn the_host_is_out_of_sight(pod: Pod) {
    if crate::lab::OUTER_PROC.get().is_some() {
        eprintln!("skipped: this machine's masked /proc, which containers see here, is not this test's to judge");
        return;
    }
    let processes = pod.shell("for p in /proc/[0-9]*; do cat $p/comm; done").await;
    assert!(!processes.contains("runtime_"), "only the container's own: {processes}");
    let seen = pod.shell("ls /root /home /etc/shadow /var/lib 2>/dev/null; echo x > /usr/x || echo refused").await;
    assert_eq!(seen, "/home:\n\n/root:\n\n/var/lib:\nrefused\n");
    assert_eq!(
        pod.shell("for d in null zero urandom; do head -c 1 /dev/$d | wc -c; done; echo > /dev/null && echo ok").await,
        "0\n1\n1\nok\n"
    );
}

async fn net_admin(pod: Pod) {
    let effective = async |added: &[&str]| {
        let mut spec = pod.spec(&["sh", "-c", "grep CapEff /proc/self/status"]);
        spec.added_capabilities = added.iter().map(|name| (*name).to_owned()).collect();
        let (_, log) = pod.run(spec).await;
        u64::from_str_radix(text(&log, "stdout").split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    // What containerd gives, and CAP_NET_ADMIN (12) only on top of it.
    assert_eq!(effective(&[]).await, 0xa804_25fb);
    assert_eq!(effective(&["NET_ADMIN"]).await, 0xa804_25fb | 1 << 12);
}

async fn containers_share_the_network(pod: Pod) {
    let _server = pod.start(pod.spec(&["/gatelab", "answer", "8080", "from next door"])).await.unwrap();
    let answer = async {
        loop {
            if let Ok(mut connection) = pod.lab.runtime.dial_in_pod(&pod.uid, 8080).await {
                let mut answer = String::new();
                connection.read_to_string(&mut answer).await.unwrap();
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(answer.await, "from next door");
    let other = pod.lab.pod().await;
    assert!(pod.lab.runtime.dial_in_pod(&other.uid, 8080).await.is_err(), "another pod has a loopback of its own");
    let ip = pod.shell("cat /etc/hosts").await.lines().last().unwrap_or_default().to_owned();
    assert!(ip.contains("alias.test"), "{ip}");
    let hosts = pod.shell("grep host$ /etc/hosts").await;
    let address = format!("{}:8080", hosts.lines().last().unwrap().split_whitespace().next().unwrap()).parse().unwrap();
    let mut from_node = pod.lab.runtime.dial_from_node("node-0", address).await.unwrap();
    let mut answer = String::new();
    from_node.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "from next door");
}

async fn too_much_memory(pod: Pod) {
    // tail keeps its last line in memory, and zeros have no line ends.
    let mut spec = pod.spec(&["sh", "-c", "head -c 400000000 /dev/zero | tail | sleep 20"]);
    spec.memory_limit = Some(64 << 20);
    let (status, _) = pod.run(spec).await;
    assert_eq!((status.exit_code, status.signal, status.oom_killed), (137, Some(libc::SIGKILL), true));

    let mut spec = pod.spec(&["true"]);
    spec.memory_limit = Some(64 << 20);
    let (status, _) = pod.run(spec).await;
    assert_eq!((status.exit_code, status.oom_killed), (0, false));
}

async fn usage(pod: Pod) {
    let id = pod.start(pod.spec(&["sh", "-c", "while :; do :; done"])).await.unwrap();
    let bound = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let (resident, cpu) = pod.lab.runtime.usage(&id).await.unwrap();
        if resident > 0 && cpu > 0 {
            return;
        }
        assert!(tokio::time::Instant::now() < bound, "{resident} bytes, {cpu} ns");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn removing_a_pod(pod: Pod) {
    let other = pod.lab.pod().await;
    let id = other.sleeper().await;
    let (lab, waited) = (pod.lab.clone(), id.clone());
    let waiting = tokio::spawn(async move { lab.runtime.wait_container(&waited).await });
    tokio::task::yield_now().await;
    other.lab.runtime.remove_sandbox(&other.uid).await;
    // Whoever waited already is told; whoever asks now hears that there is no such container.
    if let Ok(status) = waiting.await.unwrap() {
        assert_eq!(status.signal, Some(libc::SIGKILL));
    }
    assert!(matches!(pod.lab.runtime.wait_container(&id).await, Err(RuntimeError::NotFound(_))));
    assert!(matches!(other.start(other.spec(&["true"])).await, Err(RuntimeError::NotFound(_))));
}

async fn nothing_is_left_unreaped(pod: Pod) {
    for _ in 0..10 {
        pod.run(pod.spec(&["true"])).await;
        assert!(pod.start(pod.spec(&["/no/such"])).await.is_err());
    }
    // Other tests run at the same time: a zombie may be seen once, but must not stay.
    let seen: Vec<_> = zombies();
    until("zombies stay", || zombies().iter().all(|pid| !seen.contains(pid))).await;
}

fn zombies() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("stat"));
    let stats = processes.filter_map(|path| std::fs::read_to_string(path).ok());
    stats
        .filter(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with("Z 1 ")))
        .map(|stat| stat[..stat.find(' ').unwrap()].to_owned())
        .collect()
}
