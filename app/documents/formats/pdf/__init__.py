"""PDF to text, page by page: PDFium first, pypdf where that fails, Tesseract for scans."""

INSTALL_RECOGNITION = (
    "apt install tesseract-ocr on Debian and Ubuntu, brew install tesseract on macOS"
)
