"""What can go wrong with the homeserver, each with a message that says what to do."""


class HomeserverError(Exception):
    """Any failure of this package; its text is meant for the person at the keyboard."""


class InstallError(HomeserverError):
    """Synapse could not be installed."""


class StartError(HomeserverError):
    """Synapse did not start, or not in time."""


class AccountError(HomeserverError):
    """The homeserver refused to make, log in or change an account."""
