//! What containers write, as it comes to be in their log files.

use embedded_cluster::runtime::ContainerRuntime as _;
use libtest_mimic::Trial;

use crate::lab::{Pod, test, text, until};

pub fn tests() -> Vec<Trial> {
    vec![
        test("both_streams_are_logged_with_time_and_tag", both_streams),
        test("long_lines_are_cut_and_whole_output_is_kept", long_lines),
        test("a_line_is_in_the_log_while_the_container_runs", a_line_is_there_at_once),
        test("a_container_with_a_terminal_has_one", terminal),
    ]
}

async fn both_streams(pod: Pod) {
    let (_, log) = pod.run(pod.spec(&["sh", "-c", "echo out; sleep 0.05; echo err >&2; sleep 0.05; printf rest"])).await;
    let lines: Vec<(&str, &str)> = log.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(lines.iter().map(|(_, rest)| *rest).collect::<Vec<_>>(), ["stdout F out", "stderr F err", "stdout P rest"]);
    for (time, _) in &lines {
        time.parse::<jiff::Timestamp>().unwrap();
        assert_eq!(time.len(), "2023-11-14T22:13:20.000000005Z".len());
    }
    assert!(lines.windows(2).all(|pair| pair[0].0 < pair[1].0), "{log}");
}

async fn long_lines(pod: Pod) {
    let script = "head -c 100000 /dev/zero | tr '\\0' x; echo; i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let (_, log) = pod.run(pod.spec(&["sh", "-c", script])).await;
    let first: Vec<&str> = log.lines().take(7).map(|line| line.splitn(3, ' ').nth(2).unwrap()).collect();
    assert!(
        first[..6].iter().all(|piece| piece.starts_with("P ") && piece.len() == 2 + 16 * 1024),
        "{:?}",
        first.iter().map(|p| p.len()).collect::<Vec<_>>()
    );
    assert_eq!(first[6].len(), 2 + 100_000 - 6 * 16 * 1024);
    let text = text(&log, "stdout");
    assert_eq!(text.lines().count(), 20_001);
    assert!(text.ends_with("line 19999\n"));
}

async fn a_line_is_there_at_once(pod: Pod) {
    let spec = pod.spec(&["sh", "-c", "echo first; sleep 1000"]);
    let log = spec.log_path.clone();
    let id = pod.start(spec).await.unwrap();
    until("the line is logged", || std::fs::read_to_string(&log).is_ok_and(|text| text.ends_with("stdout F first\n"))).await;
    pod.lab.runtime.signal_container(&id, libc::SIGKILL).await.unwrap();
}

async fn terminal(pod: Pod) {
    let mut spec = pod.spec(&["sh", "-c", "tty; test -t 2 && echo $TERM"]);
    spec.tty = true;
    let (status, log) = pod.run(spec).await;
    // A terminal ends lines with CR LF.
    assert_eq!(text(&log, "stdout"), "/dev/pts/0\r\nxterm\r\n", "{status:?}");
}
