-- 0024_rollback: the acts stay in the store, whose objects are not touched.

drop trigger if exists note_removal on public.images;
drop trigger if exists note_removal on public.lots;
drop trigger if exists note_removal on public.vehicles;
drop function if exists raw.note_removal;
drop function if exists raw.note_in_catalogue;
drop function if exists raw.add_to_catalogue;
drop table if exists raw.catalogue;
