-- withdraw: the row versions of a file and their lots
select r.id as row_id, r.lot as "lot!"
from raw.manifests m
cross join unnest(m.row_ids) as u (row_id)
join raw.rows r
  on r.id = u.row_id
  and r.window_start_utc >= date_trunc('month', m.window_start_utc, 'UTC')
  and r.window_start_utc < date_trunc('month', m.window_start_utc, 'UTC') + interval '1 month'
where m.file_id = $1
  and m.window_start_utc = $2
  and r.lot is not null
