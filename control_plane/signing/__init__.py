"""Who may sign what in a fleet: the TUF repository, drafts, and the approver's side."""
