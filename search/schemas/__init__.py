"""Every model that goes over the wire, used by API and client alike."""
