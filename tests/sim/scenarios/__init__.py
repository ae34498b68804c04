"""The schedules that broke earlier drafts, each told as a story, which must end badly without its rule."""
