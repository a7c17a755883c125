-- verify lots: lots that stand and have no head
-- $1 source, $2 id of the last lot that was read, $3 lots to read
select l.id as "id!", l.source as "source!", l.lot_external_id::bigint as "lot!"
from public.lots l
where l.id > $2
  and l.source = coalesce($1, l.source)
  and l.row_hash is not null
  and l.lot_external_id ~ '^[0-9]{1,18}$'
  and not exists (
    select
    from raw.heads h
    where h.source = l.source
      and h.lot = case when l.lot_external_id ~ '^[0-9]{1,18}$' then l.lot_external_id::bigint end
  )
order by l.id
limit $3
