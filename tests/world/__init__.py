"""A small pure world: real coordinators on a model of the room, with virtual time and instant workers."""
