//! The promises of the queue, one by one.

use super::*;
use crate::names::{Cluster, Kind, ObjectId};

const ALL: usize = usize::MAX;

fn key(plugin: &str, name: &str) -> Key {
    let kind = Kind::new("demo.reef.dev", "v1", "Hello");
    Key { plugin: PluginId::new("ns", plugin), cluster: Cluster::local(), object: ObjectId::new(kind, "ns", name) }
}

fn queue(plugins: &[(&str, usize)]) -> Queue {
    let mut queue = Queue::new(Backoff::default(), 7);
    for (plugin, concurrency) in plugins {
        queue.open(PluginId::new("ns", plugin), *concurrency);
    }
    queue
}

fn names(jobs: Option<Vec<Job>>) -> Vec<String> {
    jobs.unwrap_or_default().into_iter().map(|job| job.key.object.name.to_string()).collect()
}

#[test]
fn a_key_never_runs_twice_at_once_and_a_thousand_events_cost_one_more_run() {
    let (mut queue, now) = (queue(&[("p", 4)]), Instant::now());
    queue.add(key("p", "a"), Priority::Edit, now);
    assert_eq!(names(queue.pop(now, ALL)), ["a"]);
    for _ in 0..1000 {
        queue.add(key("p", "a"), Priority::Edit, now);
        assert!(queue.pop(now, ALL).is_none());
    }
    queue.done(&key("p", "a"), Verdict::Done.into(), now);
    assert_eq!(names(queue.pop(now, ALL)), ["a"]);
    queue.done(&key("p", "a"), Verdict::Done.into(), now);
    assert!(queue.pop(now, ALL).is_none());
}

#[test]
fn backoff_doubles_up_to_the_cap_and_events_in_between_do_not_inflate_it() {
    let (mut queue, mut now) = (queue(&[("p", 1)]), Instant::now());
    queue.add(key("p", "a"), Priority::Edit, now);
    let mut expected = Duration::from_millis(200);
    for failures in 0..14 {
        let jobs = queue.pop(now, ALL).unwrap();
        assert_eq!(jobs[0].failures, failures);
        queue.done(&key("p", "a"), Verdict::Retry(None).into(), now);
        let delay = queue.next_timer(now).unwrap() - now;
        assert!(delay >= expected.mul_f64(0.8) && delay <= expected.mul_f64(1.2), "{failures}: {delay:?}");
        expected = (expected * 2).min(Duration::from_secs(120));
        now += delay;
    }
    for _ in 0..10 {
        queue.add(key("p", "a"), Priority::Edit, now);
        assert_eq!(queue.pop(now, ALL).unwrap()[0].failures, 14, "ten edits later");
        queue.done(&key("p", "a"), Verdict::Retry(None).into(), now);
    }
}

#[test]
fn success_resets_the_failures_and_a_repeat_leaves_them() {
    let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
    queue.add(key("p", "a"), Priority::Edit, now);
    queue.pop(now, ALL).unwrap();
    queue.done(&key("p", "a"), Verdict::Retry(Some(Duration::ZERO)).into(), now);
    assert_eq!(queue.pop(now, ALL).unwrap()[0].failures, 1);
    queue.done(&key("p", "a"), Verdict::Repeat(Duration::ZERO).into(), now);
    assert_eq!(queue.pop(now, ALL).unwrap()[0].failures, 1);
    queue.done(&key("p", "a"), Verdict::After(Duration::ZERO).into(), now);
    assert_eq!(queue.pop(now, ALL).unwrap()[0].failures, 0);
}

#[test]
fn an_event_beats_a_timer_and_the_timer_does_not_fire_a_second_time() {
    let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
    queue.add(key("p", "a"), Priority::Edit, now);
    queue.pop(now, ALL).unwrap();
    queue.done(&key("p", "a"), Verdict::After(Duration::from_secs(60)).into(), now);
    assert!(queue.pop(now, ALL).is_none());
    queue.add(key("p", "a"), Priority::Edit, now);
    assert_eq!(names(queue.pop(now, ALL)), ["a"]);
    queue.done(&key("p", "a"), Verdict::Done.into(), now);
    assert!(queue.next_timer(now).is_none());
    assert!(queue.pop(now + Duration::from_secs(120), ALL).is_none());
}

#[test]
fn a_terminal_failure_waits_for_a_change() {
    let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
    queue.add(key("p", "a"), Priority::Edit, now);
    queue.pop(now, ALL).unwrap();
    queue.done(&key("p", "a"), Verdict::Terminal.into(), now);
    assert!(queue.pop(now + Duration::from_secs(3600), ALL).is_none());
    queue.add(key("p", "a"), Priority::Edit, now);
    assert_eq!(names(queue.pop(now, ALL)), ["a"]);
}

#[test]
fn plugins_take_turns_and_none_gets_more_than_its_concurrency() {
    let (mut queue, now) = (queue(&[("p", 2), ("q", 2)]), Instant::now());
    for i in 0..10 {
        queue.add(key("p", &format!("p{i}")), Priority::Edit, now);
    }
    queue.add(key("q", "q0"), Priority::Edit, now);
    assert_eq!(names(queue.pop(now, ALL)), ["p0", "p1"]);
    assert_eq!(names(queue.pop(now, ALL)), ["q0"]);
    assert!(queue.pop(now, ALL).is_none(), "p has no room");
    queue.done(&key("p", "p1"), Verdict::Done.into(), now);
    assert_eq!(names(queue.pop(now, ALL)), ["p2"]);
}

#[test]
fn events_run_before_a_backlog_and_the_backlog_still_advances() {
    let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
    for i in 0..100 {
        queue.add(key("p", &format!("old{i}")), Priority::Background, now);
    }
    let mut old = 0;
    for i in 0..40 {
        queue.add(key("p", &format!("new{i}")), Priority::Edit, now);
        let job = queue.pop(now, ALL).unwrap().remove(0);
        old += usize::from(job.key.object.name.starts_with("old"));
        queue.done(&job.key, Verdict::Done.into(), now);
    }
    assert_eq!(old, 10);
}

#[test]
fn an_event_lifts_a_key_out_of_the_background_and_it_runs_once() {
    let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
    for name in ["a", "b", "c"] {
        queue.add(key("p", name), Priority::Background, now);
    }
    queue.add(key("p", "c"), Priority::Edit, now);
    let mut seen = Vec::new();
    while let Some(jobs) = queue.pop(now, ALL) {
        for job in jobs {
            seen.push(job.key.object.name.to_string());
            queue.done(&job.key, Verdict::Done.into(), now);
        }
    }
    assert_eq!(seen, ["c", "a", "b"]);
}

#[test]
fn a_closed_plugin_leaves_nothing_behind() {
    let (mut queue, now) = (queue(&[("p", 2)]), Instant::now());
    for name in ["a", "b", "c"] {
        queue.add(key("p", name), Priority::Edit, now);
    }
    queue.pop(now, ALL).unwrap();
    queue.done(&key("p", "a"), Verdict::After(Duration::from_secs(1)).into(), now);
    queue.pop(now, ALL).unwrap();
    queue.close(&PluginId::new("ns", "p"));
    queue.done(&key("p", "b"), Verdict::Retry(None).into(), now);
    queue.add(key("p", "d"), Priority::Edit, now);
    assert!(queue.pop(now + Duration::from_secs(60), ALL).is_none());
    queue.done(&key("p", "c"), Verdict::Done.into(), now);
    assert!(queue.is_empty() && queue.timers.is_empty() && queue.load().next().is_none());
}

#[test]
fn a_key_that_runs_while_its_plugin_closes_and_opens_does_not_run_twice_at_once() {
    let (mut queue, now) = (queue(&[("p", 2)]), Instant::now());
    queue.add(key("p", "a"), Priority::Edit, now);
    queue.pop(now, ALL).unwrap();
    queue.close(&PluginId::new("ns", "p"));
    queue.open(PluginId::new("ns", "p"), 2);
    queue.add(key("p", "a"), Priority::Edit, now);
    assert!(queue.pop(now, ALL).is_none());
    queue.done(&key("p", "a"), Verdict::Done.into(), now);
    assert_eq!(names(queue.pop(now, ALL)), ["a"]);
}

fn run(queue: &mut Queue, now: Instant, wrote: Option<u64>) -> Vec<String> {
    let jobs = queue.pop(now, ALL).unwrap_or_default();
    for job in &jobs {
        queue.done(&job.key, Ran { verdict: Verdict::Done, wrote }, now);
    }
    names(Some(jobs))
}

/// All keys are added, and run one by one, each taking 1 ms.
fn order(queue: &mut Queue, mut now: Instant) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(jobs) = queue.pop(now, 1) {
        now += Duration::from_millis(1);
        for job in jobs {
            queue.done(&job.key, Verdict::Done.into(), now);
            seen.push(job.key.object.name.to_string());
        }
    }
    seen
}

#[test]
fn an_edit_runs_before_a_dependency_and_that_before_a_backlog() {
    let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
    for (name, priority) in [("list", Priority::Background), ("child", Priority::Dependency), ("edit", Priority::Edit)] {
        queue.add(key("p", name), priority, now);
    }
    assert_eq!(order(&mut queue, now), ["edit", "child", "list"]);
}

#[test]
fn new_objects_run_before_a_backlog_of_10_000() {
    let (mut queue, now) = (queue(&[("p", 4)]), Instant::now());
    for i in 0..10_000 {
        queue.add(key("p", &format!("old{i}")), Priority::Background, now);
    }
    let running = names(queue.pop(now, ALL));
    let later = now + Duration::from_secs(60);
    queue.add(key("p", "new"), Priority::Edit, later);
    let mut passed = 0;
    for done in &running {
        queue.done(&key("p", done), Verdict::Done.into(), later);
        let next = names(queue.pop(later, ALL));
        if next == ["new"] {
            break;
        }
        passed += 1;
    }
    assert!(passed <= 1, "{passed} keys of the backlog ran before an object that is new");
}

#[test]
fn a_backlog_finishes_under_a_steady_stream_that_could_fill_all() {
    let (mut queue, mut now) = (queue(&[("p", 1)]), Instant::now());
    for i in 0..1000 {
        queue.add(key("p", &format!("old{i}")), Priority::Background, now);
    }
    let (mut old, mut turns) = (0, 0);
    while old < 1000 {
        for priority in [Priority::Edit, Priority::Dependency] {
            queue.add(key("p", &format!("{priority:?}{turns}")), priority, now);
        }
        turns += 1;
        now += Duration::from_millis(1);
        let job = queue.pop(now, ALL).unwrap().remove(0);
        old += usize::from(job.key.object.name.starts_with("old"));
        queue.done(&job.key, Verdict::Done.into(), now);
        assert!(turns <= 4001, "only {old} of the backlog after {turns} turns");
    }
}

#[test]
fn a_plugin_with_100_000_keys_does_not_delay_another_ones_event() {
    let (mut queue, now) = (queue(&[("big", 64), ("small", 4)]), Instant::now());
    for i in 0..100_000 {
        queue.add(key("big", &format!("k{i}")), Priority::Edit, now);
    }
    let running = names(queue.pop(now, 32));
    queue.add(key("small", "k"), Priority::Background, now);
    queue.done(&key("big", &running[0]), Verdict::Done.into(), now);
    let next: Vec<String> =
        (0..2).filter_map(|_| queue.pop(now, 1)).flatten().map(|job| job.key.plugin.name.to_string()).collect();
    assert!(next.contains(&"small".to_owned()), "it waits for more than one turn of its neighbour: {next:?}");
}

#[test]
fn no_more_keys_are_handed_out_than_there_is_room_for() {
    let (mut queue, now) = (queue(&[("p", 64)]), Instant::now());
    for i in 0..64 {
        queue.add(key("p", &format!("k{i}")), Priority::Edit, now);
    }
    assert_eq!(queue.pop(now, 3).unwrap().len(), 3);
    assert!(queue.pop(now, 0).is_none());
    assert_eq!(queue.pop(now, ALL).unwrap().len(), BATCH);
}

/// 10,000 objects that ask to run again in ten minutes are all reconciled within a second, as after a restart.
#[test]
fn timers_are_spread_out_after_a_restart() {
    const PERIOD: Duration = Duration::from_secs(600);
    let (mut queue, now) = (queue(&[("p", 32)]), Instant::now());
    for i in 0..10_000 {
        queue.add(key("p", &format!("k{i}")), Priority::Background, now);
    }
    while let Some(jobs) = queue.pop(now, ALL) {
        for job in jobs {
            queue.done(&job.key, Verdict::After(PERIOD).into(), now);
        }
    }
    for minute in 0..10 {
        let until = now + Duration::from_secs(60) * (minute + 1);
        let mut fired = 0;
        while let Some(jobs) = queue.pop(until, ALL) {
            for job in jobs {
                fired += 1;
                queue.done(&job.key, Verdict::Done.into(), until);
            }
        }
        let expected = if minute == 0 { 0..=0 } else { 1000..=1250 };
        assert!(expected.contains(&fired), "{fired} timers fired in minute {minute}");
    }
}

#[test]
fn a_timer_of_a_single_key_is_not_early_and_a_tenth_late_at_most() {
    for seed in 0..200 {
        let (mut queue, now) = (Queue::new(Backoff::default(), seed), Instant::now());
        queue.open(PluginId::new("ns", "p"), 1);
        queue.add(key("p", "a"), Priority::Edit, now);
        queue.pop(now, ALL).unwrap();
        queue.done(&key("p", "a"), Verdict::After(Duration::from_secs(100)).into(), now);
        let delay = queue.next_timer(now).unwrap() - now;
        assert!((100..=110).contains(&delay.as_secs()), "{delay:?}");
    }
}

/// How often a key runs within so many seconds that is woken again as soon as it has run.
fn runs_in_a_loop(seconds: u64, output: impl Fn(u64) -> u64) -> (u64, Vec<Braked>) {
    let (mut queue, start) = (queue(&[("p", 1)]), Instant::now());
    let (mut now, mut runs, mut braked) = (start, 0, Vec::new());
    queue.add(key("p", "a"), Priority::Edit, now);
    while now < start + Duration::from_secs(seconds) {
        match queue.pop(now, ALL) {
            Some(_) => {
                queue.add(key("p", "a"), Priority::Dependency, now);
                queue.done(&key("p", "a"), Ran { verdict: Verdict::Done, wrote: Some(output(runs)) }, now);
                runs += 1;
                now += Duration::from_millis(1);
            }
            None => now = queue.next_timer(now).unwrap(),
        }
        braked = queue.braked(&PluginId::new("ns", "p"), now);
    }
    (runs, braked)
}

#[test]
fn a_key_that_flips_its_output_is_slowed_down_ever_more_and_named() {
    let (runs, braked) = runs_in_a_loop(600, |run| 1 + run % 2);
    assert!((20..=40).contains(&runs), "{runs} runs in ten minutes");
    assert_eq!((braked.len(), braked[0].why, braked[0].delay), (1, Why::Repeats, Duration::from_secs(120)));
    assert_eq!(braked[0].key, key("p", "a"));
}

#[test]
fn a_key_whose_writes_are_undone_is_slowed_down_and_named() {
    let (runs, braked) = runs_in_a_loop(600, |_| 7);
    assert!((20..=40).contains(&runs), "{runs} runs in ten minutes");
    assert_eq!(braked[0].why, Why::Repeats);
}

#[test]
fn a_key_that_wakes_itself_with_something_new_each_time_is_slowed_down_and_named() {
    let (runs, braked) = runs_in_a_loop(600, |run| 1 + run);
    assert!((100..=170).contains(&runs), "{runs} runs in ten minutes");
    assert_eq!((braked[0].why, braked[0].delay), (Why::Busy, Duration::from_secs(10)));
}

#[test]
fn a_timer_that_fires_at_once_again_and_again_is_slowed_down_and_named() {
    let (mut queue, start) = (queue(&[("p", 1)]), Instant::now());
    let (mut now, mut runs) = (start, 0);
    queue.add(key("p", "a"), Priority::Edit, now);
    while now < start + Duration::from_secs(60) {
        while queue.pop(now, ALL).is_some() {
            queue.done(&key("p", "a"), Verdict::After(Duration::ZERO).into(), now);
            runs += 1;
        }
        now = queue.next_timer(now).unwrap().max(now + Duration::from_millis(1));
    }
    assert!((100..=120).contains(&runs), "{runs} runs in a minute");
    assert_eq!(queue.braked(&PluginId::new("ns", "p"), now).len(), 1);
}

#[test]
fn an_event_does_not_beat_a_brake_and_its_neighbours_notice_nothing() {
    let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
    for _ in 0..30 {
        queue.add(key("p", "hot"), Priority::Edit, now);
        run(&mut queue, now, Some(7));
    }
    queue.add(key("p", "hot"), Priority::Edit, now);
    queue.add(key("p", "calm"), Priority::Background, now);
    assert_eq!(run(&mut queue, now, None), ["calm"]);
    assert!(run(&mut queue, now, None).is_empty());
    let at = queue.next_timer(now).unwrap();
    assert_eq!(run(&mut queue, at, None), ["hot"], "it is late, not lost");
}

#[test]
fn who_calms_down_is_named_no_longer_and_runs_at_once() {
    let (mut queue, mut now) = (queue(&[("p", 1)]), Instant::now());
    for _ in 0..30 {
        queue.add(key("p", "a"), Priority::Edit, now);
        now = queue.next_timer(now).unwrap_or(now);
        run(&mut queue, now, Some(7));
    }
    let plugin = PluginId::new("ns", "p");
    assert_eq!(queue.braked(&plugin, now).len(), 1);
    now += Duration::from_secs(241);
    assert!(queue.braked(&plugin, now).is_empty());
    queue.add(key("p", "a"), Priority::Edit, now);
    assert_eq!(run(&mut queue, now, Some(8)), ["a"]);
    queue.add(key("p", "a"), Priority::Edit, now);
    assert_eq!(run(&mut queue, now, Some(9)), ["a"]);
}

#[test]
fn somebody_who_edits_once_a_second_is_not_braked() {
    let (mut queue, mut now) = (queue(&[("p", 1)]), Instant::now());
    for edit in 0..1000 {
        queue.add(key("p", "a"), Priority::Edit, now);
        assert_eq!(run(&mut queue, now, Some(1 + edit)), ["a"]);
        now += Duration::from_secs(1);
    }
}

#[test]
fn keys_that_are_calm_again_are_forgotten() {
    let (mut queue, mut now) = (queue(&[("p", 8)]), Instant::now());
    for i in 0..1000 {
        queue.add(key("p", &format!("k{i}")), Priority::Edit, now);
        run(&mut queue, now, Some(1 + i));
    }
    now += Duration::from_secs(300);
    for i in 0..1000 {
        queue.add(key("p", "other"), Priority::Edit, now + Duration::from_secs(i));
        run(&mut queue, now + Duration::from_secs(i), Some(1 + i));
    }
    assert!(queue.brakes.len() <= 2, "{} are remembered", queue.brakes.len());
}

fn pushback(retry_after: Option<u64>) -> Pushback {
    Pushback { retry_after: retry_after.map(Duration::from_secs), said: "too many requests".into() }
}

/// How many keys run at once at a time, with enough of them waiting; they are put back.
fn at_once(queue: &mut Queue, now: Instant) -> usize {
    let jobs: Vec<Job> = std::iter::from_fn(|| queue.pop(now, ALL)).flatten().collect();
    for job in &jobs {
        queue.done(&job.key, Verdict::Repeat(Duration::ZERO).into(), now);
    }
    jobs.len()
}

#[test]
fn a_plugin_that_is_turned_away_pauses_as_long_as_it_was_asked_and_comes_back_one_by_one() {
    let (mut queue, now) = (queue(&[("p", 8), ("q", 8)]), Instant::now());
    for i in 0..20 {
        queue.add(key("p", &format!("k{i}")), Priority::Edit, now);
    }
    let plugin = PluginId::new("ns", "p");
    assert!(queue.pushed_back(&plugin, pushback(Some(10)), now));
    assert!(!queue.pushed_back(&plugin, pushback(Some(10)), now), "one of the same burst");
    assert_eq!(at_once(&mut queue, now + Duration::from_millis(9_900)), 0);
    assert_eq!(queue.slowed(&plugin, now).unwrap().limit, 4, "half, although there were two");
    let resume = now + Duration::from_secs(12);
    queue.add(key("q", "k"), Priority::Edit, now);
    assert_eq!(names(queue.pop(now, ALL)), ["k"], "its neighbour goes on");
    let at: Vec<usize> = (0..6).map(|second| at_once(&mut queue, resume + Duration::from_secs(second))).collect();
    assert!(at[0] >= 4 && at[0] <= 6 && at.windows(2).all(|w| w[1] >= w[0] && w[1] <= w[0] + 1), "{at:?}");
    assert_eq!(at[5], 8, "{at:?}");
    assert!(queue.slowed(&plugin, resume + Duration::from_secs(6)).is_none());
    assert_eq!((queue.recovered(), queue.recovered()), (vec![plugin], vec![]), "told once");
    assert_eq!(queue.len(), 21, "every key is still there");
}

#[test]
fn without_retry_after_the_pauses_double_up_to_half_a_minute() {
    let (mut queue, mut now) = (queue(&[("p", 8)]), Instant::now());
    let plugin = PluginId::new("ns", "p");
    queue.add(key("p", "a"), Priority::Edit, now);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        queue.pushed_back(&plugin, pushback(None), now);
        let pause = queue.slowed(&plugin, now).unwrap().pause;
        assert_eq!(queue.next_timer(now), Some(now + pause), "the loop wakes when it is over");
        pauses.push(pause.as_secs_f64());
        now += pause;
    }
    let expected = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0];
    for (pause, expected) in pauses.iter().zip(expected) {
        assert!(*pause >= expected && *pause <= expected * 1.2, "{pauses:?}");
    }
    assert_eq!(queue.slowed(&plugin, now).unwrap().limit, 1);
    queue.pop(now, ALL).unwrap();
    queue.done(&key("p", "a"), Verdict::Done.into(), now);
    queue.pushed_back(&plugin, pushback(None), now);
    assert!(queue.slowed(&plugin, now).unwrap().pause.as_secs_f64() <= 0.6, "a run that went through ends the row");
}

#[test]
fn a_server_that_asks_for_a_day_is_not_taken_at_its_word() {
    let (mut queue, now) = (queue(&[("p", 8)]), Instant::now());
    queue.pushed_back(&PluginId::new("ns", "p"), pushback(Some(86_400)), now);
    assert!(queue.slowed(&PluginId::new("ns", "p"), now).unwrap().pause <= Duration::from_secs(144));
}
