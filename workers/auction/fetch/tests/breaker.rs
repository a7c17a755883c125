//! Tests slots and breaker through schedulers and workers, on a clock that the test drives.

use super::*;
use crate::scheduler::{DueWindow, Scheduler};
use crate::source::{self, SourceStatus};

const FETCH_JOB: &JobDefinition = &JobDefinition::for_job::<Fetch>();

fn parse_time(time: &str) -> DateTime<Utc> {
    format!("2026-03-06T{time}:00Z").parse().unwrap()
}

impl FetchFixture {
    /// Runs a scheduler at this time. Each window has its own slot, as for a simulated feed.
    async fn due_window(&self, time: &str) -> DueWindow {
        let scheduler = Scheduler::new(FETCH_JOB, &["copart"]).simulated();
        scheduler.enqueue_due_windows(self.pool(), Some(parse_time(time))).await.unwrap().remove(0)
    }

    /// Runs a scheduler at this time, and the fetch that it enqueues until it has ended.
    async fn run_slot(&self, time: &str) -> FetchJobResult {
        let job = self.due_window(time).await.job.unwrap();
        self.job_result(job).await
    }

    async fn source_status(&self) -> SourceStatus {
        source::read_status(self.pool(), Some("copart")).await.unwrap().remove(0)
    }

    /// Returns the transitions of the breaker, oldest first.
    async fn breaker_transitions(&self) -> Vec<String> {
        let moves = self.source_status().await.transitions;
        moves.iter().rev().map(|t| format!("{} → {}: {}", t.from, t.to, t.why)).collect()
    }

    async fn window_note(&self, time: &str) -> (String, String) {
        let row = sqlx::query!(
            "select state, note from fleet.windows where source = 'copart' and window_start_utc = $1",
            parse_time(time)
        );
        let row = row.fetch_one(self.pool()).await.unwrap();
        (row.state, row.note.unwrap_or_default())
    }

    async fn slot_outcomes(&self) -> Vec<Option<String>> {
        let outcomes = sqlx::query_scalar!("select outcome from fleet.fetch_slots order by slot");
        outcomes.fetch_all(self.pool()).await.unwrap()
    }
}

/// Returns the responses for `slots` rejected attempts and one successful one.
fn refusals_then_file(slots: usize) -> Vec<ScriptedResponse> {
    let mut acts: Vec<ScriptedResponse> = (0..slots * 4).map(|_| refused_response()).collect();
    acts.push(full_response(feed_csv()));
    acts
}

const FIVE_SLOTS: [&str; 5] = ["14:00", "14:15", "14:30", "14:45", "15:00"];

#[tokio::test]
async fn five_failed_slots_open_the_breaker_and_an_hour_later_one_probe_decides() {
    let fixture = FetchFixture::with_responses(refusals_then_file(6)).await;
    for (failed, time) in FIVE_SLOTS.into_iter().enumerate() {
        assert_eq!(fixture.run_slot(time).await.state, "discarded");
        let status = fixture.source_status().await;
        assert_eq!(status.consecutive_failures, failed as i32 + 1);
        assert_eq!(status.breaker, if failed < 4 { "closed" } else { "open" });
    }
    assert_eq!(fixture.source_status().await.probe_at, Some(parse_time("16:00")));
    for time in ["15:15", "15:30", "15:45"] {
        let due = fixture.due_window(time).await;
        assert_eq!(due.job, None);
        let (state, note) = fixture.window_note(time).await;
        assert_eq!((state.as_str(), Some(&note)), ("missed", due.held.as_ref()));
        assert!(note.contains("the breaker is open since") && note.ends_with("probe at 2026-03-06T16:00Z"), "{note}");
    }
    assert_eq!(fixture.request_count(), 20, "nothing is asked while it is open");

    let probe = fixture.due_window("16:00").await.job.unwrap();
    let half = fixture.source_status().await;
    assert_eq!((half.breaker.as_str(), half.probe_job), ("half_open", Some(probe)));
    assert!(fixture.due_window("16:15").await.held.unwrap().contains(&format!("its probe is job {probe}")));
    assert_eq!(fixture.job_result(probe).await.state, "discarded");
    assert_eq!(
        (fixture.source_status().await.breaker, fixture.source_status().await.probe_at),
        ("open".into(), Some(parse_time("17:00")))
    );
    assert!(fixture.due_window("16:45").await.held.is_some());

    assert_eq!(fixture.run_slot("17:00").await.report["outcome"], "fetched");
    let well = fixture.source_status().await;
    assert_eq!((well.breaker.as_str(), well.consecutive_failures, well.opened_at), ("closed", 0, None));
    assert!(well.last_success_at.is_some() && well.last_error.unwrap().contains("403"));
    assert!(fixture.due_window("17:15").await.job.is_some());
    let (fifth, second) = (probe - 1, probe + 1);
    assert_eq!(
        fixture.breaker_transitions().await,
        [
            "closed → open: 5 slots failed in a row".to_owned(),
            format!("open → half_open: an hour has passed: job {probe} is the probe"),
            "half_open → open: the probe failed".to_owned(),
            format!("open → half_open: an hour has passed: job {second} is the probe"),
            "half_open → closed: the probe succeeded".to_owned(),
        ]
    );
    let who: Vec<String> = fixture.source_status().await.transitions.into_iter().rev().map(|t| t.who).collect();
    let jobs = [fifth, probe, second].map(|job| format!("job {job}"));
    assert_eq!(who, [&jobs[0], "scheduler", &jobs[1], "scheduler", &jobs[2]]);
}

#[tokio::test]
async fn a_success_forgets_the_failures_before_it() {
    let fixture = FetchFixture::with_responses(refusals_then_file(4)).await;
    for time in &FIVE_SLOTS[..4] {
        fixture.run_slot(time).await;
    }
    assert_eq!(fixture.source_status().await.consecutive_failures, 4);
    fixture.run_slot(FIVE_SLOTS[4]).await;
    assert_eq!(fixture.source_status().await.consecutive_failures, 0);
    assert!(fixture.breaker_transitions().await.is_empty());
}

#[tokio::test]
async fn a_slot_has_one_attempt_however_many_jobs_and_workers_want_it() {
    let fixture = FetchFixture::with_responses((0..40).map(|_| full_response(feed_csv())).collect()).await;
    let fetch = Fetch { late_ok: true, ..fixture.current_fetch().await };
    let mut conn = fixture.pool().acquire().await.unwrap();
    for _ in 0..12 {
        enqueue_job(&mut conn, &fetch, EnqueueOptions::default()).await.unwrap().unwrap();
    }
    let by_hand = Scheduler::new(FETCH_JOB, &["copart"]).simulated().manual();
    by_hand.enqueue_due_windows(fixture.pool(), Some(fetch.window_start_utc)).await.unwrap();
    let (events, mut seen) = broadcast::channel(1000);
    let leave = CancellationToken::new();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let worker = Worker::new(&fixture.db.db, TEST_JOBS)
                .with_extensions(fixture.tools.clone())
                .with_event_sender(events.clone());
            tokio::spawn(worker.run(leave.clone()))
        })
        .collect();
    let mut ended = 0;
    while ended < 13 {
        ended += i32::from(matches!(seen.recv().await.unwrap(), WorkerEvent::Ended { .. }));
    }
    leave.cancel();
    futures::future::join_all(workers).await;
    assert_eq!((fixture.request_count(), fixture.slot_outcomes().await), (1, vec![Some("fetched".to_owned())]));
    assert_eq!(fixture.window_state(&fetch).await.0, "fetched");
}

#[tokio::test]
async fn a_rescued_fetch_goes_on_with_its_attempt_and_an_older_run_gets_none() {
    let fixture = FetchFixture::with_responses(vec![]).await;
    let window = parse_time("14:00");
    let job = fixture.due_window("14:00").await.job.unwrap();
    let begin = |job, run| source::begin_fetch(fixture.pool(), "copart", window, job, run, true);
    assert_eq!(begin(job, 1).await.unwrap(), FetchPermission::Granted);
    assert_eq!(begin(job, 2).await.unwrap(), FetchPermission::Granted);
    assert_eq!(begin(job, 1).await.unwrap(), FetchPermission::UnderWay, "it was thought dead, and is late");
    assert_eq!(begin(job + 1, 1).await.unwrap(), FetchPermission::UnderWay);
    let mut conn = fixture.pool().acquire().await.unwrap();
    assert!(!source::end_fetch(&mut conn, job, 1, SlotResult::Fetched).await.unwrap());
    assert!(source::end_fetch(&mut conn, job, 2, SlotResult::Fetched).await.unwrap());
    assert_eq!(begin(job + 1, 1).await.unwrap(), FetchPermission::AttemptUsed);
}

#[tokio::test]
async fn a_fetch_whose_worker_died_after_it_could_not_keep_the_file_goes_on_with_its_attempt() {
    let fixture = FetchFixture::with_responses(vec![]).await;
    let job = fixture.due_window("14:00").await.job.unwrap();
    let begin = |run| source::begin_fetch(fixture.pool(), "copart", parse_time("14:00"), job, run, true);
    assert_eq!(begin(1).await.unwrap(), FetchPermission::Granted);
    source::record_store_failure(fixture.pool(), job, 1).await.unwrap();
    assert_eq!(begin(2).await.unwrap(), FetchPermission::Granted, "the job has not ended");
    // The record of the first run does not apply to the second.
    source::record_store_failure(fixture.pool(), job, 1).await.unwrap();
    sqlx::query!("update fleet.jobs set state = 'discarded', error = 'torn', finished_at = now() where id = $1", job)
        .execute(fixture.pool())
        .await
        .unwrap();
    assert_eq!(fixture.slot_outcomes().await, [Some("failed".to_owned())]);
    assert_eq!(fixture.source_status().await.consecutive_failures, 1);
    assert_eq!(begin(3).await.unwrap(), FetchPermission::AttemptUsed);
}

#[tokio::test]
async fn what_never_began_or_is_our_own_fault_says_nothing_of_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path()).unwrap();
    let stage = ScriptedServer::with_responses((0..9).map(|_| full_response(feed_csv())).collect()).await;
    let mut fixture = FetchFixture::with_server(stage, url.as_str(), |options| options).await;
    std::fs::write(folder.path().join("spool"), "a file in the way").unwrap();
    let end = fixture.run_slot("14:00").await;
    assert!(end.state == "discarded" && end.error.contains("store the downloaded bytes"), "{end:?}");
    let job = fixture.due_window("14:15").await.job.unwrap();
    sqlx::query!("update fleet.jobs set state = 'cancelled', finished_at = now() where id = $1", job)
        .execute(fixture.pool())
        .await
        .unwrap();
    fixture.tools = Extensions::new().with(Store::open("memory:").unwrap());
    assert!(fixture.run_slot("14:30").await.error.contains("COPART_FEED_URL"));
    assert_eq!(fixture.slot_outcomes().await, [Some("unkept".to_owned())]);
    assert_eq!(fixture.source_status().await.consecutive_failures, 0);
}

#[tokio::test]
async fn a_source_that_is_switched_off_is_not_fetched_and_its_windows_say_so() {
    let fixture = FetchFixture::with_responses(vec![full_response(feed_csv())]).await;
    let waiting = fixture.due_window("14:00").await.job.unwrap();
    assert!(source::switch_source(fixture.pool(), "copart", false, "anna", "they asked us to").await.unwrap());
    assert!(!source::switch_source(fixture.pool(), "copart", false, "anna", "again").await.unwrap());
    assert_eq!(fixture.job_result(waiting).await.report["outcome"], "disabled");
    assert_eq!(fixture.window_note("14:00").await, ("missed".to_owned(), "the source is disabled".to_owned()));
    assert!(fixture.due_window("14:15").await.held.unwrap().starts_with("the source is disabled"));
    let by_hand = Scheduler::new(FETCH_JOB, &["copart"]).simulated().manual();
    let due = by_hand.enqueue_due_windows(fixture.pool(), Some(parse_time("14:15"))).await.unwrap().remove(0);
    assert!(due.job.is_none() && due.held.is_some(), "by hand neither");
    assert!(source::switch_source(fixture.pool(), "copart", true, "anna", "they like us again").await.unwrap());
    assert_eq!(
        (fixture.request_count(), fixture.run_slot("14:30").await.report["outcome"].as_str()),
        (0, Some("fetched"))
    );
    assert_eq!(
        fixture.breaker_transitions().await,
        ["enabled → disabled: they asked us to", "disabled → enabled: they like us again"]
    );
}

#[tokio::test]
async fn auto_fetch_switched_off_stops_the_schedule_but_not_a_person() {
    let fixture = FetchFixture::with_responses(vec![full_response(feed_csv())]).await;
    sqlx::query!("update config set auto_fetch_enabled = false").execute(fixture.pool()).await.unwrap();
    assert_eq!(fixture.due_window("14:00").await.job, None);
    let (state, note) = fixture.window_note("14:00").await;
    assert!(state == "missed" && note.contains("auto_fetch_enabled"), "{note}");
    let by_hand = Scheduler::new(FETCH_JOB, &["copart"]).simulated().manual();
    let due = by_hand.enqueue_due_windows(fixture.pool(), Some(parse_time("14:00"))).await.unwrap().remove(0);
    assert_eq!(fixture.job_result(due.job.unwrap()).await.report["outcome"], "fetched");
    let again = by_hand.enqueue_due_windows(fixture.pool(), Some(parse_time("14:00"))).await.unwrap().remove(0);
    assert_eq!(again.job, None);
}

#[tokio::test]
async fn a_breaker_is_reset_by_hand_with_a_reason_by_the_role_for_it() {
    let fixture = FetchFixture::with_responses(refusals_then_file(5)).await;
    for time in FIVE_SLOTS {
        fixture.run_slot(time).await;
    }
    let mut conn = fixture.pool().acquire().await.unwrap();
    sqlx::raw_sql("set role app_ro").execute(&mut *conn).await.unwrap();
    let read = sqlx::query_scalar::<_, String>("select breaker_state from fleet.sources_view");
    assert_eq!(read.fetch_one(&mut *conn).await.unwrap(), "open");
    let reset = "select fleet.reset_breaker('copart', 'anna', 'a new address')";
    assert!(sqlx::raw_sql(reset).execute(&mut *conn).await.is_err(), "a reader may not");
    sqlx::raw_sql("set role vinops_ops").execute(&mut *conn).await.unwrap();
    let done = sqlx::query_scalar::<_, bool>(reset).fetch_one(&mut *conn).await.unwrap();
    assert!(done);
    sqlx::raw_sql("reset role").execute(&mut *conn).await.unwrap();
    assert_eq!(fixture.breaker_transitions().await.last().unwrap(), "open → closed: a new address");
    assert_eq!(fixture.run_slot("15:15").await.report["outcome"], "fetched");
}

#[tokio::test]
async fn a_probe_that_is_cancelled_leaves_the_next_slot_to_probe() {
    let fixture = FetchFixture::with_responses(refusals_then_file(5)).await;
    for time in FIVE_SLOTS {
        fixture.run_slot(time).await;
    }
    let probe = fixture.due_window("16:00").await.job.unwrap();
    sqlx::query!("update fleet.jobs set state = 'cancelled', finished_at = now() where id = $1", probe)
        .execute(fixture.pool())
        .await
        .unwrap();
    assert_eq!(
        fixture.breaker_transitions().await.last().unwrap(),
        "half_open → open: the probe ended without an answer"
    );
    assert_eq!(fixture.run_slot("16:15").await.report["outcome"], "fetched");
    assert_eq!(fixture.source_status().await.breaker, "closed");
}

#[tokio::test]
async fn two_schedulers_at_once_give_one_probe() {
    let fixture = FetchFixture::with_responses(refusals_then_file(5)).await;
    for time in FIVE_SLOTS {
        fixture.run_slot(time).await;
    }
    let looks = futures::future::join_all((0..6).map(|_| fixture.due_window("16:00"))).await;
    assert_eq!(looks.iter().filter(|due| due.job.is_some()).count(), 1);
    assert_eq!(fixture.breaker_transitions().await.iter().filter(|it| it.contains("half_open")).count(), 1);
}

#[tokio::test]
async fn a_fetch_put_in_behind_the_schedulers_back_does_not_pass_an_open_breaker() {
    let fixture = FetchFixture::with_responses(refusals_then_file(5)).await;
    for time in FIVE_SLOTS {
        fixture.run_slot(time).await;
    }
    let sneaky = Fetch { source: "copart".into(), window_start_utc: parse_time("15:15"), late_ok: true };
    assert_eq!(fixture.run_fetch(&sneaky).await.report["outcome"], "breaker_open");
    assert_eq!((fixture.request_count(), fixture.window_note("15:15").await.1.as_str()), (20, "the breaker is open"));
}

#[tokio::test]
async fn a_probe_whose_worker_died_and_whose_time_went_by_leaves_the_next_slot_to_probe() {
    let fixture = FetchFixture::with_responses(refusals_then_file(5)).await;
    for time in FIVE_SLOTS {
        fixture.run_slot(time).await;
    }
    let probe = fixture.due_window("16:00").await.job.unwrap();
    let begun = source::begin_fetch(fixture.pool(), "copart", parse_time("16:00"), probe, 1, true).await.unwrap();
    assert_eq!(begun, FetchPermission::Granted);
    // The rescued job finds its quarter-hour over and completes.
    sqlx::query!("update fleet.jobs set state = 'completed', finished_at = now() where id = $1", probe)
        .execute(fixture.pool())
        .await
        .unwrap();
    assert_eq!(fixture.slot_outcomes().await.last().unwrap().as_deref(), Some("lost"));
    assert_eq!(fixture.source_status().await.breaker, "open");
    assert_eq!(fixture.run_slot("16:15").await.report["outcome"], "fetched");
}

#[tokio::test]
async fn a_database_that_stumbles_costs_neither_the_window_nor_a_failed_slot() {
    let fixture = FetchFixture::with_responses((0..3).map(|_| full_response(feed_csv())).collect()).await;
    sqlx::raw_sql(
        "create sequence public.stumbles;
        create function public.stumble() returns trigger language plpgsql as $$ begin
          if nextval('public.stumbles') < 3 then
            raise exception 'a lost race' using errcode = '40001';
          end if;
          return new;
        end $$;
        create trigger stumble before insert on raw.csv_files for each row execute function public.stumble()",
    )
    .execute(fixture.pool())
    .await
    .unwrap();
    let end = fixture.run_slot("14:00").await;
    assert_eq!(end.report["outcome"], "fetched", "{end:?}");
    assert_eq!((fixture.request_count(), fixture.slot_outcomes().await), (3, vec![Some("fetched".to_owned())]));
    assert_eq!(fixture.source_status().await.consecutive_failures, 0);
}
