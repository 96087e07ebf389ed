"""What is let in: the formats of pictures, and the limits of files, pictures and archives."""

# Pillow's names of the formats that are read -> suffixes of their files. All hold pixels; a format that holds drawing
# commands (EPS, PDF, WMF) could start another program. JPEG 2000 is left out: no camera writes it, and a file of a few
# KB can have so many pieces, of so many kinds, that its decoder takes minutes or gigabytes. Formats that Pillow knows
# without importing more come first.
FORMATS = {
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),  # MPO: several JPEGs, as some telephones and cameras write them
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "TGA": (".tga",),
}
SUFFIXES = {suffix for suffixes in FORMATS.values() for suffix in suffixes}

FILE_BYTES = 2**28  # of one picture file, before and after decompression: it is held in memory

# Pixels of one picture that are held in memory while it is decoded: it takes less than 1 GB (tests/test_pictures.py).
PIXELS = 2**26
HEAVY_PIXELS = 2**25  # of a format whose decoder holds each pixel in 16 bytes or more
HEAVY_FORMATS = {"WEBP"}
# Pixels, and bytes of the file, of a picture that Pillow decodes in Python, a pixel at a time: a second or a few. It
# removes each comment of a plain PPM by copying what follows it.
SLOW_PIXELS = SLOW_BYTES = 2**22
PLAIN_COMMENTS = 1000
PPM_HEADER = 2**16  # bytes before the pixels of a PPM, with comments: Pillow reads them one at a time
# Pixels of a JPEG in one scan, which is decoded at 1/2, 1/4 or 1/8 of its size: telephones have 200 megapixels.
JPEG_PIXELS = 2**28
# Each scan of a progressive JPEG passes over all pixels; encoders write some ten.
JPEG_SCANS = 100
JPEG_SCANNED = 16 * PIXELS  # pixels times scans
JPEG_SEGMENTS = 10_000  # before, between and after the scans; 256 MB of comments or EXIF are 4,096
JPEG_FILL = 2**20  # bytes between the segments before the first scan, which belong to none
EXIF_BYTES = 2**18  # of a picture; those of a camera are less than 64 KiB, with their preview
PNG_CHUNKS = 2**17  # of a PNG: 256 MB of pixels in chunks of 8 KiB, which is usual, are 2**15
PNG_COMPRESSED = 100  # chunks of text or of a colour profile, each of which may expand to 1 MB
TIFF_VALUES = 2**17  # of one entry of a TIFF, as strips or tiles; Pillow keeps a list of them
TIFF_TILED = 4 * PIXELS  # pixels of all tiles of a TIFF: a tile may be larger than what the picture has of it
TIFF_OVERLAP = 4  # times the size of the file: what its strips or tiles may have in all
TIFF_ENTRIES = 2**16 - 1  # of its directory, as many as a TIFF with offsets of 32 bits can have
GIF_BLOCKS = 2**16  # before the image of a GIF; a colour profile of 10 MB has 40,000

# A zip's member or a compressed tar may expand this much; ordinary pictures and text expand less.
EXPANSION = 200
MEMBER_BYTES = 2**26  # of a zip's member; up to this it may expand more
TAR_BYTES = 2**32  # of a compressed tar; up to this it may expand more
DEVKIT_BYTES = 2**26  # of ILSVRC-2012's development kit, decompressed; it has 10 MB
TAR_NAME_BYTES = 2**16  # of a long name, or of other facts about one member, in a tar
TAR_GLOBAL_FACTS = 100  # facts about all members of a tar
