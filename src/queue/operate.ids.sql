-- queue: ids
select id
from fleet.jobs
where (cardinality($1::text[]) = 0 or kind = any($1))
  and (cardinality($2::text[]) = 0 or state = any($2))
  and ($3::text is null or starts_with(key, $3))
  and ($4::timestamptz is null or created_at >= $4)
  and ($5::text is null or position(lower($5) in lower(error)) > 0)
order by id desc
limit $6
