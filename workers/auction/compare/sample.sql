-- verify lots: a sample
-- $1 source, $2 percentage of the heads' pages, $3 percentage of the lots' pages, $4 number of lots
with sample_lots as (
  (
    select source, lot
    from raw.heads tablesample system ($2)
    where source = coalesce($1, source)
    order by random()
    limit $4
  )
  union
  (
    select source, case when lot_external_id ~ '^[0-9]{1,18}$' then lot_external_id::bigint end
    from public.lots tablesample system ($3)
    where source = coalesce($1, source)
      and row_hash is not null
      and lot_external_id is not null
    order by random()
    limit $4
  )
)
select source as "source!", lot as "lot!"
from sample_lots
where lot is not null
order by random()
limit $4
