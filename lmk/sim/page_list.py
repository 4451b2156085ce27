"""A list of pages in aggregate: how many of each region lie there, in the order in which the regions came."""

from __future__ import annotations

from lmk.sim.region import Region


class PageList:
    """Oldest first."""

    __slots__ = ("pages", "regions")

    def __init__(self) -> None:
        self.regions: dict[Region, int] = {}
        self.pages = 0

    def first(self) -> Region:
        """The region that has lain there longest. Raises LookupError if the list is empty."""
        for region in self.regions:
            return region
        raise LookupError("the list is empty")

    def put(self, region: Region, pages: int) -> None:
        """At the young end; what the region has there already is merged into its place."""
        self.regions[region] = self.regions.get(region, 0) + pages
        self.pages += pages

    def put_youngest(self, region: Region, pages: int) -> None:
        """At the young end, with what the region has there already."""
        self.regions[region] = self.regions.pop(region, 0) + pages
        self.pages += pages

    def cut(self, region: Region, pages: int) -> None:
        """Take off so many of the region's; it has at least as many."""
        left = self.regions[region] - pages
        if left:
            self.regions[region] = left
        else:
            del self.regions[region]
        self.pages -= pages
