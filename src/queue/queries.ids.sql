-- queue: ids
select id
from fleet.jobs
where (cardinality($1::text[]) = 0 or kind = any($1))
  and (cardinality($2::text[]) = 0 or state = any($2))
  and ($3::text is null or starts_with(key, $3))
  and ($4::timestamptz is null or created_at >= $4)
  and ($5::text is null or position(lower($5) in lower(error)) > 0)
  and (
    $7::text is null
    or payload ->> 'source' = $7
    or starts_with(key, $7 || '/')
    or payload ->> 'file_id' in (select f.file_id::text from raw.csv_files as f where f.source = $7)
  )
  and (
    $8::timestamptz is null
    or case
      when payload ->> 'window_start_utc' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$'
        then (payload ->> 'window_start_utc')::timestamptz = $8
      else payload ->> 'file_id' in (select f.file_id::text from raw.csv_files as f where f.window_start_utc = $8)
    end
  )
order by id desc
limit $6
