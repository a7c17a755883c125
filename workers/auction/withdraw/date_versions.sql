-- withdraw: date the versions that stay
-- $1 row ids, $2 their windows, $3 the withdrawn window, $4 source
with version_dates as (
  select *
  from unnest($1::bigint[], $2::timestamptz[]) as d (row_id, at)
),
head_updates as (
  update raw.heads h
  set version_window = d.at
  from version_dates d
  where h.source = $4
    and h.row_id = d.row_id
    and h.version_window = $3
),
lotless_updates as (
  update raw.lotless_rows l
  set version_window = d.at
  from version_dates d
  where l.source = $4
    and l.row_id = d.row_id
)
update raw.rows r
set window_start_utc = d.at
from version_dates d
where r.id = d.row_id
  and r.window_start_utc = $3
