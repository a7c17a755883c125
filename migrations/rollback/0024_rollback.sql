-- 0024_rollback: keeps the actions in the store, whose objects are not changed.

drop trigger if exists note_removal on public.images;
drop trigger if exists note_removal on public.lots;
drop trigger if exists note_removal on public.vehicles;
drop function if exists raw.note_removal;
drop function if exists raw.note_in_catalogue;
drop function if exists raw.add_to_catalogue;
drop table if exists raw.catalogue;
